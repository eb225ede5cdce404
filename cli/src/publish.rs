//! `cairn publish`: rows of files become records of a stream.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::Follower;
use cairn_ingest::encode::Message;
use cairn_ingest::publisher::Publisher;
use cairn_ingest::signer::Signer;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{Signatures, StreamDefinition};
use indicatif::{ProgressBar, ProgressStyle};

use crate::chain::Chain;
use crate::home::{Home, read_secret};
use crate::rows::{Input, InputFormat, Mapping, ReadOptions, RowReader};

/// How often the progress bar moves.
const PROGRESS_EVERY: u64 = 2_000;

/// Publish rows of CSV or NDJSON files to a stream.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn publish --dir city --stream traffic.flow monday.csv.gz tuesday.csv.gz\n  zcat feed.ndjson.gz | cairn publish --dir city --stream emergency.incident --map id=incident_id -\n\nColumns are mapped to the fields of the stream's schema by name; .gz, .xz and .zst are unpacked."
)]
pub(crate) struct PublishArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The stream's name.
    #[arg(long)]
    stream: String,
    /// Files, one after the other; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Take the field TO from the column FROM.
    #[arg(long, value_name = "FROM=TO")]
    map: Vec<String>,
    /// Give a field the same value in each row.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Leave out columns that the schema does not have, instead of refusing the file.
    #[arg(long)]
    ignore_unknown: bool,
    /// Pass over rows that do not fit, and count them, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,
    /// What the files hold; told by their first character, if left out.
    #[arg(long, value_enum)]
    input: Option<InputKind>,
    /// Sign the records with the Ed25519 key in this file (64 hexadecimal digits, mode 0600), as an identity that may
    /// publish to the stream.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// How many records one signature covers, 1 to 65536.
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000, requires = "sign_key")]
    sign_run: u32,
    /// Between the columns of CSV.
    #[arg(long, default_value_t = ',')]
    delimiter: char,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum InputKind {
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object in each line.
    Ndjson,
}

/// The definition of a registered stream.
pub(crate) fn definition_of(follower: &Follower, name: &str) -> Result<StreamDefinition> {
    let ledger = follower.ledger();
    match ledger.stream(name) {
        Some(entry) => Ok(entry.definition.clone()),
        None => {
            let known: Vec<_> = ledger.streams().keys().map(String::as_str).collect();
            bail!("stream {name} is not registered; registered are: {}", known.join(", "))
        }
    }
}

/// Runs `cairn publish`.
pub(crate) async fn publish(args: &PublishArgs) -> Result<()> {
    let mapping = Mapping::parse(&args.map, &args.set, args.ignore_unknown)?;
    let delimiter = u8::try_from(args.delimiter).ok().filter(u8::is_ascii);
    let options = ReadOptions {
        format: args.input.map(|kind| match kind {
            InputKind::Csv => InputFormat::Csv,
            InputKind::Ndjson => InputFormat::Ndjson,
        }),
        delimiter: delimiter
            .with_context(|| format!("--delimiter {:?}: expected one ASCII character", args.delimiter))?,
        skip_bad: args.skip_bad,
    };
    // The chain is not followed any longer than it takes to read the definition.
    let (config, definition) = {
        let Chain { config, follower, .. } = Chain::open(&args.dir).await?;
        (config, definition_of(&follower, &args.stream)?)
    };
    let publisher = Publisher::new(&config.kafka(), &definition)?;
    let publisher = match signer(args)? {
        Some(signer) => publisher.signed(&definition, signer)?,
        None if definition.signatures == Signatures::Required => {
            bail!("stream {} takes signed records alone: give --sign-key FILE", definition.name)
        }
        None => publisher,
    };
    let started = Instant::now();
    let mut outcome = Outcome::default();
    let mut failure = None;
    for file in &args.files {
        let input = Input::parse(file);
        let reader = RowReader::open(&input, &definition, &mapping, &options)?;
        if let Err(error) = send_all(reader, &input, &publisher, &mut outcome).await {
            failure = Some(error);
            break;
        }
    }
    // What was handed over before a bad row is sent all the same, and told.
    let counts = publisher.flush().await?;
    let seconds = started.elapsed().as_secs_f64();
    crate::say!(
        "{} records published to {} in {seconds:.1} s ({:.0}/s), {} rows passed over",
        counts.sent,
        definition.topic,
        rate(counts.sent, seconds),
        outcome.bad
    )?;
    for line in &outcome.bad_lines {
        crate::say!("  {line}")?;
    }
    failure.map_or(Ok(()), Err)
}

/// Who signs, if anybody.
fn signer(args: &PublishArgs) -> Result<Option<Signer>> {
    let Some(file) = &args.sign_key else { return Ok(None) };
    let key = SigningKey::from_seed(&read_secret(file)?);
    let chain = Home::open(&args.dir)?.genesis()?.tag();
    Ok(Some(Signer::new(key, chain).in_runs(args.sign_run)?))
}

#[derive(Default)]
struct Outcome {
    bad: u64,
    bad_lines: Vec<String>,
}

async fn send_all(mut reader: RowReader, input: &Input, publisher: &Publisher, outcome: &mut Outcome) -> Result<()> {
    let bar = bar(&reader, input);
    let mut message = Message::default();
    let result = loop {
        match reader.next_message(&mut message) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        let key = message.key.as_deref().map(str::as_bytes);
        publisher.send_raw(key, Some(&message.value), message.event_time_ms).await?;
        if reader.good_count().is_multiple_of(PROGRESS_EVERY) {
            bar.set_position(reader.progress().read_bytes());
            bar.set_message(format!("{} rows", reader.good_count()));
            // Reading is blocking work: let the runtime's other tasks have a turn.
            tokio::task::yield_now().await;
        }
    };
    bar.finish_and_clear();
    outcome.bad += reader.bad_count();
    outcome.bad_lines.extend(reader.bad().iter().map(ToString::to_string));
    result
}

fn bar(reader: &RowReader, input: &Input) -> ProgressBar {
    let bar = match reader.progress().total_bytes() {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_prefix(input.name())
}

/// Things a second.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.001)
}
