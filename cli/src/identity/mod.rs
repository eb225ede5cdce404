//! `cairn identity`: organisations, people, devices and nodes on the chain.
//!
//! | module | what |
//! | --- | --- |
//! | [`register`] | one new identity, or all keys of a folder |
//! | [`change`] | another key, the end, another expiry |
//! | [`show`] | a list, or everything about one |

mod change;
mod register;
mod show;

use anyhow::Result;
use cairn_proof::identity::IdentityKind;

/// Register identities, give them other keys, revoke them, let them expire, show them.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum IdentityCommand {
    Add(register::AddArgs),
    Rotate(change::RotateArgs),
    Revoke(change::RevokeArgs),
    Expire(change::ExpireArgs),
    List(show::ListArgs),
    Show(show::ShowArgs),
}

/// What an identity stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A department, a company: registers identities and streams.
    Organisation,
    /// A person.
    Person,
    /// A sensor, a meter, a vehicle.
    Device,
    /// A process of the platform.
    Node,
}

impl From<Kind> for IdentityKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Organisation => Self::Organisation,
            Kind::Person => Self::Person,
            Kind::Device => Self::Device,
            Kind::Node => Self::Node,
        }
    }
}

/// Runs `cairn identity`.
pub(crate) async fn identity(command: &IdentityCommand) -> Result<()> {
    match command {
        IdentityCommand::Add(args) => register::add(args).await,
        IdentityCommand::Rotate(args) => change::rotate(args).await,
        IdentityCommand::Revoke(args) => change::revoke(args).await,
        IdentityCommand::Expire(args) => change::expire(args).await,
        IdentityCommand::List(args) => show::list(args).await,
        IdentityCommand::Show(args) => show::show(args).await,
    }
}
