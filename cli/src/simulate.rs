//! `cairn simulate`: a city publishes to the built-in streams.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use cairn_ingest::publisher::Publisher;
use cairn_proof::statement::StreamDefinition;

use crate::city::{City, CityConfig, CityEncoder, CityStream, Drive, Event, Stamp, Tally, drive};
use crate::home::Home;
use crate::publish::definition_of;
use crate::roles::{CHAIN_PATIENCE, follow, stop_signal};

/// Simulate a city: traffic detectors, smart meters, emergency incidents, day curves, some bad records.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn simulate --dir city --rate 5000 --for 60\n  cairn simulate --dir city --seed 7 --detectors 2000 --bad-share 0.02"
)]
pub(crate) struct SimulateArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Records a second over all streams.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Seconds to run; until Ctrl-C, if left out.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// The same seed gives the same city.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Traffic detector sites.
    #[arg(long, default_value_t = CityConfig::default().detectors)]
    detectors: u32,
    /// Smart meters.
    #[arg(long, default_value_t = CityConfig::default().meters)]
    meters: u32,
    /// Emergency incidents in a day of the city.
    #[arg(long, default_value_t = CityConfig::default().incidents_per_day)]
    incidents_per_day: u32,
    /// Share of records that cannot be decoded, 0.0 to 1.0.
    #[arg(long, default_value_t = CityConfig::default().bad_share)]
    bad_share: f64,
}

/// Publishes a city's events to Kafka.
pub(crate) struct CityPublisher {
    publishers: Vec<Publisher>,
    encoder: CityEncoder,
}

impl CityPublisher {
    /// For the built-in streams among `streams`.
    pub(crate) fn new(kafka: &cairn_ingest::kafka::KafkaConfig, streams: &[StreamDefinition]) -> Result<Self> {
        let encoder = CityEncoder::new(streams)?;
        let mut publishers: Vec<Publisher> = vec![];
        for stream in CityStream::ALL {
            let Some(definition) = streams.iter().find(|definition| definition.name == stream.name()) else {
                bail!("stream {} is not registered; `cairn init` sets it up", stream.name());
            };
            let publisher = match publishers.first() {
                Some(first) => first.and_for(definition)?,
                None => Publisher::new(kafka, definition)?,
            };
            publishers.push(publisher);
        }
        Ok(Self { publishers, encoder })
    }

    /// Publishes one event.
    pub(crate) async fn send(&mut self, event: &Event) -> Result<()> {
        let value = self.encoder.value(event)?;
        let publisher = &self.publishers[event.stream.index()];
        publisher.send_raw(Some(&event.key), value, Some(event.timestamp_ms)).await?;
        Ok(())
    }

    /// Waits until everything is acknowledged.
    pub(crate) async fn flush(&self) -> Result<u64> {
        match self.publishers.first() {
            Some(publisher) => Ok(publisher.flush().await?.sent),
            None => Ok(0),
        }
    }
}

/// Runs `cairn simulate`.
pub(crate) async fn simulate(args: &SimulateArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let streams = {
        let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
        CityStream::ALL.iter().map(|stream| definition_of(&follower, stream.name())).collect::<Result<Vec<_>>>()?
    };
    let mut publisher = CityPublisher::new(&config.kafka(), &streams)?;
    let mut city = City::new(&CityConfig {
        seed: args.seed,
        detectors: args.detectors,
        meters: args.meters,
        incidents_per_day: args.incidents_per_day,
        bad_share: args.bad_share,
        start_ms: now_ms(),
    })?;
    let options = Drive {
        rate: Some(args.rate),
        run_for: args.seconds.map(Duration::from_secs),
        records_max: None,
        stamp: Stamp::Wall,
    };
    let tally = drive(&mut city, &options, async |event| publisher.send(&event).await, stop_signal(false)).await?;
    let sent = publisher.flush().await?;
    for line in describe(&tally) {
        crate::say!("{line}")?;
    }
    crate::say!("{sent} records acknowledged by {}", config.kafka.brokers)
}

/// The present: a city that begins now says something else in each run.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// One line a stream.
pub(crate) fn describe(tally: &Tally) -> Vec<String> {
    CityStream::ALL
        .iter()
        .map(|stream| {
            let (sent, bad) = (tally.sent[stream.index()], tally.bad[stream.index()]);
            format!("{}: {sent} records, {bad} of them bad", stream.name())
        })
        .collect()
}
