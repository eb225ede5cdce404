//! Validators that do not do as they should.
//!
//! The library's, and the flatterer, react to votes; they take no part in anything else. The liar attacks what is ours: it
//! runs our whole node with another application. Twins are two of our nodes with one key.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use cairn_proof::{Digest, header::Header};
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_consensus::{
    Application,
    marshal::ancestry::Ancestry,
    simplex::{
        elector::RoundRobin,
        mocks::{conflicter, equivocator, nuller, outdated, relay},
        scheme::ed25519::Scheme,
        types::{Finalize, Notarize, Nullify, Vote},
    },
    types::{Epoch, ViewDelta},
};
use commonware_cryptography::{Digested, Digestible as _, Sha256, ed25519::PublicKey, sha256};
use commonware_p2p::{
    Recipients,
    simulated::{Receiver, Sender, SplitForwarder, SplitOrigin, SplitTarget},
    utils::mux::{MuxHandle, Muxer},
};
use commonware_runtime::{Clock, Handle, Metrics, Spawner, Supervisor as _, deterministic};

use super::{Kind, machine::Machine};
use crate::{
    application::{Place, Proposer},
    block::Block,
};

type Context = deterministic::Context;

/// A channel of the simulated network.
pub(crate) type Channel = (Sender<PublicKey, Context>, Receiver<PublicKey>);

/// How many different lies there are.
const LIES: u64 = 11;

/// Proposes blocks that are wrong in one way after the other, and votes for anything.
#[derive(Clone)]
pub(crate) struct Liar {
    honest: Proposer,
    told: Arc<AtomicU64>,
}

impl Liar {
    pub(crate) fn new(honest: Proposer) -> Self {
        Self { honest, told: Arc::new(AtomicU64::new(0)) }
    }

    fn distort(&self, header: &mut Header, statements: &mut Vec<Bytes>) {
        let other = Digest([0xee; 32]);
        match self.told.fetch_add(1, Ordering::Relaxed) % LIES {
            0 => header.state_root = other,
            1 => header.log_root = other,
            2 => header.log_size.0 += 1,
            3 => header.validators_hash = other,
            4 => header.timestamp_ms += 3_600_000,
            5 => header.timestamp_ms = 1,
            6 => header.proposer = [1; 32],
            7 => header.chain_id = "another".into(),
            8 => header.height = header.height.next(),
            9 => {
                statements.push(Bytes::from_static(b"not a statement"));
                header.statements_count += 1;
                header.statements_root = cairn_proof::block::statements_root(statements.iter().map(AsRef::as_ref));
            }
            _ => header.view += 1,
        }
    }
}

impl<E: Spawner + Metrics + Clock> Application<E> for Liar {
    type SigningScheme = Scheme;
    type Context = Place;
    type Block = Block;
    type Input = ();

    async fn propose(
        &mut self,
        context: (E, Place),
        ancestry: impl Ancestry<Block>,
        (): (),
    ) -> Option<Digested<Block>> {
        let honest = self.honest.propose(context, ancestry, ()).await?;
        let (mut header, mut statements) = (honest.inner().header().clone(), honest.inner().statements().to_vec());
        self.distort(&mut header, &mut statements);
        let block = Block::new(header, statements);
        let digest = block.digest();
        Some(Digested::precomputed(block, digest))
    }

    async fn verify(&mut self, _: (E, Place), _: impl Ancestry<Block>) -> bool {
        true
    }
}

/// Votes and certificates of one who only votes, epoch by epoch.
pub(crate) struct Voter {
    kind: Kind,
    votes: MuxHandle<Sender<PublicKey, Context>>,
    certificates: MuxHandle<Sender<PublicKey, Context>>,
    running: Option<Handle<()>>,
}

impl Voter {
    /// Takes the two channels; nothing is said yet. `None` for what is more than a voter.
    pub(crate) fn new(context: &Machine, kind: Kind, votes: Channel, certificates: Channel) -> Option<Self> {
        if kind.is_node() || kind == Kind::Silent {
            return None;
        }
        let start = |name, (sender, receiver): Channel| {
            let (muxer, handle) = Muxer::new(context.child(name), sender, receiver);
            muxer.start();
            handle
        };
        let (votes, certificates) = (start("votes", votes), start("certificates", certificates));
        Some(Self { kind, votes, certificates, running: None })
    }

    /// Misbehaves in `epoch` from now on, and no longer in the one before.
    pub(crate) async fn enter(&mut self, context: Machine, epoch: u64, scheme: Scheme) {
        if let Some(before) = self.running.take() {
            before.abort();
        }
        // An epoch that was entered before this voter's last start is registered still; it stays silent in it.
        let (Ok(votes), Ok(certificates)) = (self.votes.register(epoch).await, self.certificates.register(epoch).await)
        else {
            return;
        };
        self.running = match self.kind {
            Kind::Conflicter => {
                let config = conflicter::Config { scheme };
                Some(conflicter::Conflicter::<_, _, Sha256>::new(context, config).start(votes))
            }
            Kind::Nuller => Some(nuller::Nuller::<_, _, Sha256>::new(context, nuller::Config { scheme }).start(votes)),
            Kind::Outdated => {
                let config = outdated::Config { scheme, view_delta: ViewDelta::new(3) };
                Some(outdated::Outdated::<_, _, Sha256>::new(context, config).start(votes))
            }
            Kind::Flatterer => Some(context.spawn(move |_| flatter(scheme, votes))),
            Kind::Equivocator => {
                let config = equivocator::Config {
                    scheme,
                    elector: RoundRobin::<Sha256>::default(),
                    epoch: Epoch::new(epoch),
                    relay: Arc::new(relay::Relay::new()),
                };
                Some(equivocator::Equivocator::<_, _, _, Sha256>::new(context, config).start(votes, certificates))
            }
            Kind::Twins | Kind::Silent | Kind::Liar => None,
        };
    }
}

/// Answers each vote with the same vote of its own, to its sender alone.
async fn flatter<S, R>(scheme: Scheme, (mut sender, mut receiver): (S, R))
where
    S: commonware_p2p::Sender<PublicKey = PublicKey>,
    R: commonware_p2p::Receiver<PublicKey = PublicKey>,
{
    while let Ok((from, message)) = receiver.recv().await {
        let Ok(vote) = Vote::<Scheme, sha256::Digest>::decode(message) else { continue };
        let same = match vote {
            Vote::Notarize(vote) => Notarize::sign(&scheme, vote.proposal).map(Vote::Notarize),
            Vote::Nullify(vote) => Nullify::sign::<sha256::Digest>(&scheme, vote.round).map(Vote::Nullify),
            Vote::Finalize(vote) => Finalize::sign(&scheme, vote.proposal).map(Vote::Finalize),
        };
        if let Some(same) = same {
            sender.send(Recipients::One(from), same.encode(), true);
        }
    }
}

/// The channels of two nodes that share one key: each hears and reaches those for which `first` says so, or not.
pub(crate) fn split(
    context: &Context,
    channels: Vec<Channel>,
    peers: &[PublicKey],
    first: impl Fn(&PublicKey) -> bool + Clone + Send + Sync + 'static,
) -> [Vec<(impl commonware_p2p::Sender<PublicKey = PublicKey>, Receiver<PublicKey>)>; 2] {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for (sender, receiver) in channels {
        let (to_one, to_other) = sender.split_with(forwarder(peers.to_vec(), first.clone()));
        let hears = first.clone();
        let route = move |message: &commonware_p2p::Message<PublicKey>| {
            if hears(&message.0) { SplitTarget::Primary } else { SplitTarget::Secondary }
        };
        let (by_one, by_other) = receiver.split_with(context.child("twins"), route);
        one.push((to_one, by_one));
        other.push((to_other, by_other));
    }
    [one, other]
}

fn forwarder(
    peers: Vec<PublicKey>,
    first: impl Fn(&PublicKey) -> bool + Clone + Send + Sync + 'static,
) -> impl SplitForwarder<PublicKey> {
    move |origin: SplitOrigin, recipients: &Recipients<PublicKey>, _: &commonware_runtime::IoBuf| {
        let wanted: Vec<PublicKey> = match recipients {
            Recipients::All => peers.clone(),
            Recipients::Some(some) => some.clone(),
            Recipients::One(one) => vec![one.clone()],
        };
        let reached = wanted.into_iter().filter(|peer| first(peer) == (origin == SplitOrigin::Primary));
        Some(Recipients::Some(reached.collect()))
    }
}
