//! `cairn demo`: the main job in one command, in a temporary folder, with the embedded broker.
//!
//! Every number it shows is asked of the running network; whatever does not add up ends it with exit code 1.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_anchor::prove::{Sources, prove};
use cairn_anchor::roots::Roots;
use cairn_chain_client::Follower;
use cairn_proof::receipt::Receipt;
use cairn_proof::{Offset, Partition};
use indicatif::{ProgressBar, ProgressStyle};
use rand::RngExt as _;

use crate::city::{City, CityConfig, CityStream, Drive, Stamp, Tally, drive};
use crate::config::{Config, Ports};
use crate::evidence::describe;
use crate::home::{Home, read_genesis};
use crate::init::{InitArgs, init};
use crate::output::{Format, Table};
use crate::publish::{definition_of, rate};
use crate::roles::{CHAIN_PATIENCE, follow, secret_store, segment_store, stop_signal};
use crate::simulate::{CityPublisher, now_ms};
use crate::sql::query;
use crate::status::gather;
use crate::up::Network;

const ANCHOR_PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT_MS: u64 = 1_000;
/// Where free ports are looked for: below the range that systems hand out for outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Show the main job: a city publishes, records are anchored by four validators, queried, proven, and defended.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cairn demo --for 60")]
pub(crate) struct DemoArgs {
    /// Seconds for which the city publishes.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// Records a second over all streams.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Keep the network in this folder instead of a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A first port such that all ports of a network of `validators` are free at this moment.
pub(crate) fn free_ports(validators: u16) -> Result<Ports> {
    let count = Ports::count(validators);
    for _ in 0..200 {
        let base = rand::rng().random_range(PORTS.start..PORTS.end - count);
        if (base..base + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(Ports(base));
        }
    }
    bail!("no {count} free ports in a row between {} and {} on 127.0.0.1", PORTS.start, PORTS.end)
}

/// Runs `cairn demo`.
pub(crate) async fn demo(args: &DemoArgs) -> Result<()> {
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("cairn-demo-").tempdir().context("a temporary folder")?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(folder)) => folder.path().join("network"),
        (None, None) => bail!("no folder"),
    };
    // A lively chain: an idle one makes blocks as often as somebody watches for.
    let home = init(&InitArgs { heartbeat_ms: HEARTBEAT_MS, ..InitArgs::local(dir, free_ports(4)?.0) })?;
    heading(&format!("a network of four validators in {}", home.path().display()))?;
    let mut network = start(&home).await?;
    crate::say!("{}", network.addresses())?;
    let outcome = tokio::select! {
        outcome = show(args, &home) => outcome,
        failure = network.failure() => Err(failure),
        () = stop_signal(false) => Err(anyhow::anyhow!("interrupted")),
    };
    network.stop().await;
    outcome
}

async fn start(home: &Home) -> Result<Network> {
    let spinner = ProgressBar::new_spinner().with_message("starting broker, validators, ingest and query");
    spinner.enable_steady_tick(Duration::from_millis(120));
    let network = Network::start(home).await;
    spinner.finish_and_clear();
    network
}

async fn show(args: &DemoArgs, home: &Home) -> Result<()> {
    let config = home.config()?;
    let follower = follow(home, &config, CHAIN_PATIENCE).await?;
    heading(&format!("a city publishes for {} s at {} records/s", args.seconds, args.rate))?;
    let tally = publish(args, &config, &follower).await?;
    wait_anchored(&config, &follower).await?;
    heading("every record is anchored, good or bad")?;
    counts(&config, &tally).await?;
    heading("SQL over verified records")?;
    let statement = "SELECT _partition, count(*) AS records, min(_offset) AS first, max(_offset) AS last, \
                     max(_block) AS newest_block FROM traffic.flow GROUP BY _partition ORDER BY _partition";
    let answer = ask(&config, statement).await?;
    answer.table.print(Format::Table)?;
    for notice in &answer.notices {
        crate::say!("{notice}")?;
    }
    heading("a receipt, verified offline with genesis.json alone")?;
    receipt(home, &config, &follower).await?;
    heading("one byte of a stored segment is changed")?;
    tamper(home, &config, &follower).await?;
    heading("done: nothing above had to be taken on trust")
}

fn heading(text: &str) -> Result<()> {
    crate::say!("\n── {text}")
}

async fn ask(config: &Config, statement: &str) -> Result<crate::sql::Answer> {
    crate::say!("$ cairn sql \"{statement}\"")?;
    query(config.postgres(), statement, None).await
}

async fn publish(args: &DemoArgs, config: &Config, follower: &Follower) -> Result<Tally> {
    let streams =
        CityStream::ALL.iter().map(|stream| definition_of(follower, stream.name())).collect::<Result<Vec<_>>>()?;
    let mut publisher = CityPublisher::new(&config.kafka(), &streams)?;
    let mut city = City::new(&CityConfig { start_ms: now_ms(), ..CityConfig::default() })?;
    let options = Drive {
        rate: Some(args.rate),
        run_for: Some(Duration::from_secs(args.seconds)),
        records_max: None,
        stamp: Stamp::Wall,
    };
    let view = View::new(follower.clone(), args.seconds);
    let started = Instant::now();
    let mut sent = 0;
    let tally = drive(
        &mut city,
        &options,
        async |event| {
            sent += 1;
            view.show(started, sent);
            publisher.send(&event).await
        },
        std::future::pending(),
    )
    .await?;
    publisher.flush().await?;
    view.end();
    let seconds = started.elapsed().as_secs_f64();
    crate::say!(
        "{} records published, {} of them bad on purpose ({:.0}/s)",
        tally.total(),
        tally.total_bad(),
        rate(tally.total(), seconds)
    )?;
    Ok(tally)
}

/// The live view: one line that is drawn again.
struct View {
    bar: ProgressBar,
    follower: Follower,
}

impl View {
    fn new(follower: Follower, seconds: u64) -> Self {
        let bar = ProgressBar::new(seconds);
        if let Ok(style) = ProgressStyle::with_template("[{bar:24}] {pos}/{len} s  {msg}") {
            bar.set_style(style);
        }
        Self { bar, follower }
    }

    fn show(&self, started: Instant, sent: u64) {
        // Drawing is limited by the bar; looking at the ledger for each record would not be.
        if !sent.is_multiple_of(200) {
            return;
        }
        let (height, anchored, quarantined) = {
            let ledger = self.follower.ledger();
            let anchors = ledger.all_anchors();
            let records: u64 = anchors.iter().map(|entry| entry.anchor.count).sum();
            let quarantined: u64 = anchors.iter().map(|entry| entry.anchor.quarantined).sum();
            (ledger.height(), records, quarantined)
        };
        self.bar.set_position(started.elapsed().as_secs());
        let lag = sent.saturating_sub(anchored);
        let line =
            format!("published {sent}  anchored {anchored}  lag {lag}  quarantined {quarantined}  block {height}");
        self.bar.set_message(line);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

async fn wait_anchored(config: &Config, follower: &Follower) -> Result<()> {
    let started = Instant::now();
    loop {
        let status = gather(config, follower).await?;
        if status.is_anchored() {
            return crate::say!(
                "everything is anchored {:.1} s after the last record",
                started.elapsed().as_secs_f64()
            );
        }
        ensure!(
            started.elapsed() < ANCHOR_PATIENCE,
            "not everything is anchored after {} s: see the logs",
            ANCHOR_PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Compares what was published with what SQL finds.
async fn counts(config: &Config, tally: &Tally) -> Result<()> {
    let mut table = Table::new(&["stream", "published", "of them bad", "rows in SQL", "quarantined"]);
    for stream in CityStream::ALL {
        let (sent, bad) = (tally.sent[stream.index()], tally.bad[stream.index()]);
        let rows = number(config, &format!("SELECT count(*) FROM {}", stream.name())).await?;
        let quarantined =
            number(config, &format!("SELECT count(*) FROM cairn.quarantine WHERE stream = '{}'", stream.name()))
                .await?;
        table.row(vec![stream.name().into(), sent.into(), bad.into(), rows.into(), quarantined.into()]);
        ensure!(
            rows + quarantined == sent && quarantined == bad,
            "{}: {sent} published and {bad} of them bad, but SQL finds {rows} rows and {quarantined} in quarantine",
            stream.name()
        );
    }
    table.print(Format::Table)
}

async fn number(config: &Config, statement: &str) -> Result<u64> {
    let answer = query(config.postgres(), statement, None).await?;
    let json: serde_json::Value = serde_json::from_slice(&answer.table.render(Format::Json)?)?;
    let first = json[0].as_object().and_then(|row| row.values().next()).and_then(serde_json::Value::as_u64);
    first.with_context(|| format!("{statement}: expected one number"))
}

async fn receipt(home: &Home, config: &Config, follower: &Follower) -> Result<()> {
    let store = segment_store(home, config)?.verified(Arc::new(Roots::new()))?;
    let secrets = secret_store(home, config)?;
    let place = {
        let ledger = follower.ledger();
        let entry = ledger.all_anchors().first().context("nothing is anchored")?.clone();
        (entry.anchor.stream.clone(), entry.anchor.partition, entry.anchor.first)
    };
    let (stream, partition, offset): (String, Partition, Offset) = place;
    let sources = Sources { follower, store: &store, secrets: &secrets };
    let made = prove(sources, &stream, partition, offset).await?;
    let file = home.path().join("receipt.json");
    std::fs::write(&file, made.to_json()?)?;
    crate::say!("$ cairn verify {} --genesis {}", file.display(), home.genesis_file().display())?;
    let read = Receipt::from_json(&std::fs::read(&file)?)?;
    for line in describe(&read.verify(&read_genesis(&home.genesis_file())?)?) {
        crate::say!("{line}")?;
    }
    Ok(())
}

/// Flips one bit of a segment: the query over it must fail and say where; put back, it must answer again.
async fn tamper(home: &Home, config: &Config, follower: &Follower) -> Result<()> {
    let anchor = {
        let ledger = follower.ledger();
        let found = ledger
            .all_anchors()
            .iter()
            .rev()
            .find(|entry| entry.anchor.stream == "traffic.flow" && entry.anchor.count > 0);
        found.context("traffic.flow has no anchor")?.anchor.clone()
    };
    let column = first_column(follower)?;
    let file = config.store.objects_folder(home.path())?.join(&anchor.segment.path);
    let good = std::fs::read(&file).with_context(|| format!("the segment {}", file.display()))?;
    let mut bad = good.clone();
    // Within the first column's pages, which stand right after the four bytes that open the file.
    let place = 64.min(bad.len() - 1);
    bad[place] ^= 1;
    std::fs::write(&file, &bad)?;
    crate::say!("one bit of byte {place} of {} is flipped", anchor.segment.path)?;
    let statement = format!("SELECT count(DISTINCT {column}) FROM traffic.flow");
    let refused = ask(config, &statement).await;
    std::fs::write(&file, &good)?;
    match refused {
        Ok(answer) => {
            answer.table.print(Format::Table)?;
            bail!("a changed segment was answered from: this must never happen");
        }
        Err(error) => crate::say!("refused: {error}")?,
    }
    crate::say!("the bit is put back")?;
    ask(config, &statement).await?.table.print(Format::Table)
}

fn first_column(follower: &Follower) -> Result<String> {
    let definition = definition_of(follower, "traffic.flow")?;
    let schema = cairn_anchor::schema::table_schema(&definition)?;
    let column = schema.fields().first().context("traffic.flow has no column")?;
    Ok(format!("\"{}\"", column.name()))
}
