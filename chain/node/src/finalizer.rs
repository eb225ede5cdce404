//! Takes finalized blocks in, in order, exactly once: marshal hands each of them over until it is acknowledged.
//!
//! A finalized block that does not apply means that more than a third of the validators are faulty, or that this
//! validator's software or storage is: the task panics, which ends the consensus thread and so the process. To go
//! on would be to answer queries from a state that nobody agreed on.

use std::sync::Arc;

use commonware_actor::Feedback;
use commonware_codec::Encode as _;
use commonware_consensus::{Reporter, marshal::Update, types};
use commonware_cryptography::Digested;
use commonware_runtime::{Clock, Handle, Spawner};
use commonware_utils::{Acknowledgement as _, acknowledgement::Exact};
use futures::{
    StreamExt as _,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
};

use crate::{block::Block, clock, engine::Marshal, shared::Shared};

/// Hands marshal's updates to the task. Its queue is bounded by marshal's `max_pending_acks`.
#[derive(Clone)]
pub(crate) struct Updates(UnboundedSender<(Digested<Block>, Exact)>);

impl Reporter for Updates {
    type Activity = Update<Block>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        match update {
            // Not durable yet: the block itself follows.
            Update::Tip(..) => Feedback::Ok,
            Update::Block(block, acknowledgement) => match self.0.unbounded_send((block, acknowledgement)) {
                Ok(()) => Feedback::Ok,
                Err(_) => Feedback::Closed,
            },
        }
    }
}

/// Starts the task and returns what marshal reports to.
pub(crate) fn start<E: Spawner + Clock>(context: E, shared: Arc<Shared>, marshal: Marshal) -> Updates {
    let (sender, receiver) = mpsc::unbounded();
    let _task: Handle<()> = context.spawn(move |context| run(context, shared, marshal, receiver));
    Updates(sender)
}

async fn run<E: Clock>(
    context: E,
    shared: Arc<Shared>,
    marshal: Marshal,
    mut updates: UnboundedReceiver<(Digested<Block>, Exact)>,
) {
    while let Some((block, acknowledgement)) = updates.next().await {
        let height = block.inner().height();
        // After a restart, marshal repeats what it was not told to be processed; replay has seen it.
        if height > shared.ledger.height() {
            let certificate = marshal.get_finalization(types::Height::new(height.0)).await;
            let certificate = certificate.map(|finalization| finalization.encode().to_vec());
            #[allow(clippy::panic)]
            if let Err(reason) = shared.finalize(block.inner(), certificate, clock::milliseconds(&context)) {
                panic!("finalized block {height} does not apply: {reason}; this validator must not go on");
            }
        }
        acknowledgement.acknowledge();
    }
}
