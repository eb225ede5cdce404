#!/usr/bin/env node
// node cli.mjs receipt.json --genesis genesis.json
//
// The command line of verify.mjs. Exit codes: 0 verified, 3 does not verify (the first step that does not hold is
// named), 2 usage, 1 another failure.

import { readFileSync } from "node:fs";
import process from "node:process";

import { checkEngine, DoesNotVerify, readGenesis, verify } from "./verify.mjs";

async function main(given) {
  const at = given.slice(0, -1).indexOf("--genesis");
  const files = given.filter((_, place) => place !== at && place !== at + 1);
  if (at < 0 || files.length === 0 || files.some((file) => file.startsWith("-"))) {
    process.stderr.write("usage: cli.mjs RECEIPT... --genesis GENESIS\n");
    return 2;
  }
  let code = 0, name = given[at + 1];
  try {
    await checkEngine();
    const genesis = await readGenesis(readFileSync(name));
    for (name of files) {
      const bytes = readFileSync(name), prefix = files.length > 1 ? `${name}: ` : "";
      let lines;
      try {
        lines = await verify(bytes, genesis);
      } catch (error) {
        if (!(error instanceof DoesNotVerify)) throw error;
        lines = [`DOES NOT VERIFY: ${error.message}`];
        code = 3;
      }
      process.stdout.write(lines.map((line) => `${prefix}${line}\n`).join(""));
    }
  } catch (error) {
    process.stderr.write(`error: ${name}: ${error.message}\n`);
    return 1;
  }
  return code;
}

process.exitCode = await main(process.argv.slice(2));
