//! The checkpoint of a receipt: that it is the header's, and which validators signed it.
//!
//! The certificate has proven the header by then, so a checkpoint proves nothing about the record that is not proven
//! already. It carries what other programs understand, and the cosignatures of witnesses, who vouch that they were shown
//! no other log. Lines by keys that are no validator's are for whoever knows those keys.

use super::{ReceiptError, StepName};
use crate::checkpoint::{Cosigned, verify_for};
use crate::committee::Committee;
use crate::header::Header;

pub(super) fn check(header: &Header, committee: &Committee, text: &str) -> Result<(Cosigned, String), ReceiptError> {
    let cosigned = verify_for(header, committee.keys(), text)
        .map_err(|error| ReceiptError { step: StepName::Checkpoint, reason: error.to_string() })?;
    let (by, of, others) = (cosigned.validators.len(), committee.len(), cosigned.others.len());
    let detail =
        format!("log of {} anchors, signed by {by} of {of} validators, {others} lines by others", header.log_size);
    Ok((cosigned, detail))
}
