// Verifies the receipts that are dropped on index.html, in the order in which they came.

import { checkEngine, DoesNotVerify, RECEIPT_BYTES_MAX, readGenesis, verify } from "./verify.mjs";

const element = (id) => document.getElementById(id);

function show(file, kind, lines) {
  const title = document.createElement("h2"), text = document.createElement("pre");
  title.textContent = file.name;
  text.textContent = lines.join("\n");
  text.className = kind;
  element("results").append(title, text);
}

async function check(file) {
  try {
    if (!globalThis.crypto?.subtle) throw new Error("WebCrypto needs https: or localhost");
    await checkEngine();
    const genesis = await readGenesis(new TextEncoder().encode(element("genesis").value));
    const bytes = new Uint8Array(await file.slice(0, RECEIPT_BYTES_MAX + 1).arrayBuffer());
    show(file, "held", await verify(bytes, genesis));
  } catch (error) {
    if (error instanceof DoesNotVerify) show(file, "refused", [`DOES NOT VERIFY: ${error.message}`]);
    else show(file, "failed", [`not checked: ${error.message}`]);
  }
}

async function checkAll(files) {
  element("results").replaceChildren();
  for (const file of files) await check(file);
}

element("files").addEventListener("change", (event) => checkAll([...event.target.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") checkAll([...event.dataTransfer.files]);
  });
}
