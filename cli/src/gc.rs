//! `cairn gc`: removes what a crash or a lost race left in the stores, and nothing that an anchor names or may name.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cairn_anchor::gc::{Options, Report, collect};

use crate::chain::Chain;
use crate::output::{Format, Table, write_out};
use crate::roles::{secret_store, segment_store};

/// Remove segments, hash trees and batch secrets that no anchor names and that none ever will, and unfinished files.
///
/// May run while ingest does: what may still be on its way to the chain is kept, however old it is.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  cairn gc --dir city --dry-run\n  cairn gc --dir city --older-than 2d")]
pub(crate) struct GcArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Spare what was last changed less than this long ago: a number with s, m, h or d.
    #[arg(long, default_value = "1h", value_parser = age)]
    older_than: Duration,
    /// How to write what was found.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: expected a number with s, m, h or d, such as 90s, 30m, 1h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Runs the command.
pub(crate) async fn gc(args: &GcArgs) -> Result<()> {
    let Chain { home, config, follower } = Chain::open(&args.dir).await?;
    let (segments, secrets) = (segment_store(&home, &config)?, secret_store(&home, &config)?);
    let options = Options { older_than: args.older_than, dry_run: args.dry_run };
    let report = collect(&follower, &segments, &secrets, options).await?;
    print(&report, args.format)
}

fn print(report: &Report, format: Format) -> Result<()> {
    if format == Format::Json {
        let mut bytes = serde_json::to_vec_pretty(report)?;
        bytes.push(b'\n');
        return write_out(&bytes);
    }
    let names = ["place", "path", "bytes", "unfinished"];
    let mut orphans = Table::new(&names);
    for orphan in &report.orphans {
        let value = serde_json::to_value(orphan)?;
        orphans.row(names.iter().map(|name| value[*name].clone()).collect());
    }
    if format == Format::Csv {
        return orphans.print(format);
    }
    if orphans.len() > 0 {
        orphans.print(format)?;
    }
    let Report { orphans_total, orphans_bytes, examined, anchored, height, .. } = report;
    let done = if report.dry_run { "would be removed" } else { "removed" };
    crate::say!("{orphans_total} orphans of {orphans_bytes} bytes {done}, by the chain at height {height}")?;
    let Report { waiting, young, foreign, .. } = report;
    crate::say!(
        "{examined} looked at: {anchored} anchored, {waiting} that may still be anchored, {young} too young, {foreign} not \
         Cairn's"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("30m", 1_800), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(age(text).unwrap(), Duration::from_secs(seconds));
        }
        for wrong in ["", "1", "h", "-1h", "1.5h", "1w", "1 h", "99999999999d", "ä", "1hh"] {
            assert!(age(wrong).unwrap_err().contains("expected a number with s, m, h or d"), "{wrong:?}");
        }
    }
}
