//! The `cairn` binary: the only place that reads files and environment for configuration.
//!
//! | module | what |
//! | --- | --- |
//! | [`init`], [`join`], [`home`], [`config`] | a network's folder, keys and cairn.toml; the folder of a node that joins |
//! | [`up`], [`roles`], [`metrics`] | every role under supervision; one role in a process of its own |
//! | [`chain`], [`mod@reference`] | the followed chain of a command; how people name identities and validators |
//! | [`streams`], [`stream_file`] | `cairn stream`, and definitions in files |
//! | [`identity`] | `cairn identity`: who may sign |
//! | [`validators`], [`vote`] | who validates, how they did, and what they decide |
//! | [`publish`], [`rows`] | files of rows into a stream |
//! | [`simulate`], [`city`] | a simulated city |
//! | [`status`], [`sql`], [`evidence`], [`replay`] | looking, asking, proving, asking again |
//! | [`gc`] | removing what no anchor names |
//! | [`demo`] | all of it in one command |
//! | [`output`] | tables, CSV and JSON |
//!
//! Exit codes: 0 done, 1 failed, 2 usage; `verify`, `audit` and `replay` exit 3 when something does not verify.

mod chain;
mod city;
mod config;
#[cfg(test)]
mod dashboards;
mod demo;
mod evidence;
mod gc;
mod home;
mod identity;
mod init;
mod join;
mod login;
mod metrics;
mod output;
mod publish;
mod reference;
mod replay;
mod roles;
mod rows;
mod simulate;
mod sql;
mod status;
mod stream_file;
mod streams;
mod up;
mod validators;
mod vote;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Data-trust middleware for a city's event streams: anchored on a BFT chain, queried verified, proven offline.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Up(up::UpArgs),
    /// Run one node in this process: a validator, or one that follows.
    Node(roles::NodeArgs),
    /// Run ingest in this process: Kafka → segments → anchors.
    Ingest(roles::RoleArgs),
    /// Run query in this process: verified SQL over the Postgres wire.
    Query(roles::RoleArgs),
    #[command(subcommand)]
    Stream(streams::StreamCommand),
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    #[command(subcommand)]
    Validator(validators::ValidatorCommand),
    #[command(subcommand)]
    Vote(vote::VoteCommand),
    Parameters(validators::ParametersArgs),
    Publish(publish::PublishArgs),
    Simulate(simulate::SimulateArgs),
    Status(status::StatusArgs),
    Sql(sql::SqlArgs),
    Login(login::LoginArgs),
    Prove(evidence::ProveArgs),
    Verify(evidence::VerifyArgs),
    Audit(evidence::AuditArgs),
    Replay(replay::ReplayArgs),
    Gc(gc::GcArgs),
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(&arguments.command);
    let outcome = match &arguments.command {
        // Offline by design: no runtime, no network.
        Command::Verify(args) => evidence::verify(args),
        Command::Login(args) => login::login(args).map(|()| 0),
        command => on_runtime(command),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Standard error is all there is to tell it on.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on_runtime(command: &Command) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Init(args) => init::run(args).map(|()| 0),
            Command::Up(args) => up::up(args).await.map(|()| 0),
            Command::Node(args) => roles::node(args).await.map(|()| 0),
            Command::Ingest(args) => roles::ingest(args).await.map(|()| 0),
            Command::Query(args) => roles::query(args).await.map(|()| 0),
            Command::Stream(args) => streams::stream(args).await.map(|()| 0),
            Command::Identity(args) => identity::identity(args).await.map(|()| 0),
            Command::Validator(args) => validators::validator(args).await.map(|()| 0),
            Command::Vote(args) => vote::vote(args).await.map(|()| 0),
            Command::Parameters(args) => validators::parameters(args).await.map(|()| 0),
            Command::Publish(args) => publish::publish(args).await.map(|()| 0),
            Command::Simulate(args) => simulate::simulate(args).await.map(|()| 0),
            Command::Status(args) => status::status(args).await.map(|()| 0),
            Command::Login(args) => login::login(args).map(|()| 0),
            Command::Sql(args) => sql::sql(args).await.map(|()| 0),
            Command::Prove(args) => evidence::prove(args).await.map(|()| 0),
            Command::Verify(args) => evidence::verify(args),
            Command::Audit(args) => evidence::audit(args).await,
            Command::Replay(args) => replay::replay(args).await,
            Command::Gc(args) => gc::gc(args).await.map(|()| 0),
            Command::Demo(args) => demo::demo(args).await.map(|()| 0),
        }
    });
    // Reading standard input blocks a thread that nobody waits for.
    runtime.shutdown_background();
    outcome
}

/// Roles log what happens; commands for people only what goes wrong. `RUST_LOG` overrides.
fn start_logging(command: &Command) {
    let default = match command {
        Command::Node(_) => "info,commonware_p2p=warn,commonware_consensus=warn",
        Command::Ingest(_) | Command::Query(_) => "info",
        Command::Up(_) => "warn",
        _ => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
