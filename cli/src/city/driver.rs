//! Plays a city at a target rate into a sink.
//!
//! Every tick the driver sends what is due by the clock, so that a slow sink (a full producer queue) slows the city
//! down instead of filling memory, and a sink that catches up does not get a burst of more than one second's records.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::{City, CityStream, Event};

const TICK: Duration = Duration::from_millis(20);
/// Records between two turns of the runtime when no rate is set.
const UNPACED_BATCH: u64 = 512;
const RATE_MAX: u32 = 10_000_000;

/// Which time goes into the records' timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// When the record is sent, by the wall clock: what a producer does, and what lag is measured against.
    Wall,
    /// City time: the same on each run.
    #[cfg_attr(not(test), allow(dead_code))] // No command offers it yet.
    City,
}

/// How to play a city.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drive {
    /// Records per second over all streams, 1 to 10,000,000; `None`: as fast as the sink takes them.
    pub(crate) rate: Option<u32>,
    /// Stop after this time; `None`: until told.
    pub(crate) run_for: Option<Duration>,
    /// Stop after this many records; `None`: no limit.
    pub(crate) records_max: Option<u64>,
    /// Which time the records carry.
    pub(crate) stamp: Stamp,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Records sent, by stream in the order of [`CityStream::ALL`], bad ones included.
    pub(crate) sent: [u64; 3],
    /// Of these, records that have to end in quarantine.
    pub(crate) bad: [u64; 3],
}

impl Tally {
    /// Records of all streams.
    pub(crate) fn total(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Bad records of all streams.
    pub(crate) fn total_bad(&self) -> u64 {
        self.bad.iter().sum()
    }

    fn count(&mut self, stream: CityStream, bad: bool) {
        self.sent[stream.index()] += 1;
        self.bad[stream.index()] += u64::from(bad);
    }
}

/// Plays `city` into `sink` until the time or the count is over or `stop` resolves; says what was sent.
///
/// The sink is awaited for each record: it is where back-pressure comes from. A send that `stop` interrupts is not
/// counted.
///
/// # Errors
/// The sink's error, and a rate outside its limits.
pub(crate) async fn drive(
    city: &mut City,
    options: &Drive,
    mut sink: impl AsyncFnMut(Event) -> Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<Tally> {
    if let Some(rate) = options.rate {
        ensure!((1..=RATE_MAX).contains(&rate), "rate = {rate}: allowed are 1 to {RATE_MAX} records per second");
    }
    let mut stop = std::pin::pin!(stop);
    let mut pace = Pace::new(options.rate, Instant::now());
    let mut tally = Tally::default();
    let end = options.run_for.map(|time| Instant::now() + time);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let turn = async {
            match options.rate {
                Some(_) => drop(tick.tick().await),
                None => tokio::task::yield_now().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => return Ok(tally),
            () = turn => {}
        }
        let left = options.records_max.map_or(u64::MAX, |most| most.saturating_sub(tally.total()));
        if left == 0 || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(tally);
        }
        for mut event in city.by_ref().take(usize::try_from(pace.due(Instant::now()).min(left)).unwrap_or(usize::MAX)) {
            if options.stamp == Stamp::Wall {
                event.timestamp_ms = wall_ms();
            }
            let (stream, bad) = (event.stream, event.is_bad());
            tokio::select! {
                biased;
                () = &mut stop => return Ok(tally),
                sent = sink(event) => sent?,
            }
            tally.count(stream, bad);
        }
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How many records are due; pure but for the instants it is given.
struct Pace {
    rate: Option<u32>,
    since: Instant,
    credit: f64,
}

impl Pace {
    fn new(rate: Option<u32>, now: Instant) -> Self {
        Self { rate, since: now, credit: 0.0 }
    }

    fn due(&mut self, now: Instant) -> u64 {
        let Some(rate) = self.rate else { return UNPACED_BATCH };
        let earned = now.duration_since(self.since).as_secs_f64() * f64::from(rate);
        self.since = now;
        self.credit = (self.credit + earned).min(f64::from(rate));
        let due = self.credit.floor();
        self.credit -= due;
        due as u64
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::super::CityConfig;
    use super::*;

    const ENDLESS: Drive = Drive { rate: None, run_for: None, records_max: None, stamp: Stamp::City };

    fn city() -> City {
        City::new(&CityConfig { bad_share: 0.1, ..CityConfig::default() }).unwrap()
    }

    #[test]
    fn the_pace_is_the_rate_and_a_pause_gives_one_second_at_most() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(1234), start);
        let sent: u64 = (1..=500).map(|tick| pace.due(start + TICK * tick)).sum();
        assert!((12_339..=12_340).contains(&sent), "{sent} in ten seconds");
        assert!(pace.due(start + Duration::from_secs(3600)) <= 1234);
        assert_eq!(pace.due(start + Duration::from_secs(3600)), 0);

        let mut slow = Pace::new(Some(1), start);
        let sent: u64 = (1..=500).map(|tick| slow.due(start + TICK * tick)).sum();
        assert!((9..=10).contains(&sent), "{sent} in ten seconds");
        assert_eq!(Pace::new(None, start).due(start), UNPACED_BATCH);
    }

    #[tokio::test]
    async fn it_stops_after_its_time_and_never_sends_more_than_the_rate_allows() {
        let options = Drive { rate: Some(20_000), run_for: Some(Duration::from_millis(400)), ..ENDLESS };
        let mut got = Tally::default();
        let begun = Instant::now();
        let sink = async |event: Event| {
            got.count(event.stream, event.is_bad());
            Ok(())
        };
        let tally = drive(&mut city(), &options, sink, pending()).await.unwrap();
        let most = begun.elapsed().as_secs_f64() * 20_000.0;
        assert!(begun.elapsed() >= Duration::from_millis(400));
        assert!(tally.total() > 0 && tally.total() as f64 <= most, "{tally:?} of {most}");
        assert_eq!(tally, got);
    }

    #[tokio::test]
    async fn it_stops_after_a_count_when_told_and_on_an_error() {
        let options = Drive { records_max: Some(12_345), ..ENDLESS };
        let tally = drive(&mut city(), &options, async |_| Ok(()), pending()).await.unwrap();
        assert_eq!(tally.total(), 12_345);
        assert!((800..1700).contains(&tally.total_bad()), "{tally:?}");
        assert!(tally.sent.iter().all(|count| *count > 50), "a stream is nearly silent: {tally:?}");

        let tally = drive(&mut city(), &ENDLESS, async |_| Ok(()), ready(())).await.unwrap();
        assert_eq!(tally.total(), 0);
        let paced = Drive { rate: Some(1), ..ENDLESS };
        let stop = tokio::time::sleep(Duration::from_millis(50));
        let tally = drive(&mut city(), &paced, async |_| Ok(()), stop).await.unwrap();
        assert!(tally.total() <= 1, "{tally:?}");
        let stop = tokio::time::sleep(Duration::from_millis(50));
        let stuck = async |_| pending::<Result<()>>().await;
        let tally = drive(&mut city(), &ENDLESS, stuck, stop).await.unwrap();
        assert_eq!(tally.total(), 0, "a broker that takes nothing must not keep the city from stopping");

        let sink = async |_| Err(anyhow::anyhow!("broker is gone"));
        let error = drive(&mut city(), &ENDLESS, sink, pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "broker is gone");

        let still = Drive { rate: Some(0), ..ENDLESS };
        let error = drive(&mut city(), &still, async |_| Ok(()), pending()).await.unwrap_err();
        assert!(error.to_string().contains("1 to 10000000"), "{error}");
    }

    #[tokio::test]
    async fn wall_stamps_are_now_and_city_stamps_are_city_time() {
        let mut seen = Vec::new();
        for stamp in [Stamp::Wall, Stamp::City] {
            let options = Drive { records_max: Some(1), stamp, ..ENDLESS };
            let sink = async |event: Event| {
                seen.push(event.timestamp_ms);
                Ok(())
            };
            drive(&mut city(), &options, sink, pending()).await.unwrap();
        }
        assert!((wall_ms() - seen[0]).abs() < 60_000);
        assert!((seen[1] - CityConfig::default().start_ms) < 60_000);
    }
}
