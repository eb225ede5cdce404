//! Anchors of many partitions in one statement, signed once; and the same anchors one by one, as the log holds them.
//!
//! ```text
//! anchor    = an anchor's map without key 1: keys 2 to 14, deterministic CBOR
//! payload   = {1: sequence, 2: count, 3: RFC 9162 root over the anchors}                                    signed
//! statement = 18([protected, {-65537: [anchor…]}, payload, signature])          what is submitted, and stands in a block
//! log entry = 18([protected, {-65538: [index, [hash…], anchor]}, payload, signature])     what a receipt carries, and what
//!                                                                               an anchor's id is the SHA-256 of
//! ```
//!
//! Nobody signs the unprotected header, and nothing in it can be changed: count and root bind every anchor and its place.
//! So the log has one entry for each anchor, whichever way it came, and an entry says by itself who signed it. A log
//! entry is no statement and cannot be submitted. Anchors stand in strictly ascending order of stream and partition:
//! there is one statement for a set of them, and a partition stands in it once, because a second anchor of it would have
//! to name the id of the first, which hangs on the second.

use std::borrow::Cow;

use super::anchor::Anchor;
use super::envelope::{Sealed, statement_id};
use super::{Body, ChainTag, Statement, StatementError};
use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::{IdentityId, PublicKey};
use crate::tree::{self, Log, PATH_MAX};
use crate::units::{LeafIndex, Sequence, TreeSize};

pub(super) const CONTENT_TYPE: &str = "application/vnd.cairn.anchors.v1+cbor";
/// Fewest anchors in such a statement: a single one has a statement of its own kind.
pub const ANCHORS_MIN: usize = 2;
/// Most anchors in one statement. Its bytes bound them too: about 190 of them fit.
pub const ANCHORS_MAX: usize = 256;
/// What a statement of several anchors takes at most beside the anchors' own [`Anchor::encode`] and
/// [`ANCHOR_HEAD_BYTES`] for each.
pub const ANCHORS_OVERHEAD_BYTES: usize = 256;
/// The head of an anchor's byte string takes at most that.
pub const ANCHOR_HEAD_BYTES: usize = 3;

/// Label of the unprotected header with all anchors; private use (RFC 9052, section 16.2).
const ALL: i64 = -65_537;
/// Label of the unprotected header with one anchor at its place.
const ONE: i64 = -65_538;
/// Tag 18 and an array of four.
const ENVELOPE_HEAD: [u8; 2] = [0xd2, 0x84];

/// What is signed about the anchors of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    sequence: Sequence,
    count: u64,
    root: Digest,
}

impl Summary {
    fn read(payload: &[u8]) -> Result<Self, StatementError> {
        let mut reader = Reader::new(payload);
        reader.map_of(3)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let count = reader.unsigned()?;
        reader.key(3)?;
        let root = Digest(reader.fixed()?);
        reader.end()?;
        check_count(count)?;
        Ok(Self { sequence, count, root })
    }
}

fn check_count(count: u64) -> Result<(), StatementError> {
    if (ANCHORS_MIN as u64..=ANCHORS_MAX as u64).contains(&count) {
        return Ok(());
    }
    Err(StatementError::field("anchors", format!("{ANCHORS_MIN} to {ANCHORS_MAX}"), count))
}

/// The signed payload.
pub(super) fn write(anchors: &[Anchor], sequence: Sequence, writer: &mut Writer<'_>) {
    let leaves: Vec<Digest> = anchors.iter().map(|anchor| tree::leaf_hash(&anchor.encode())).collect();
    writer.map(3);
    writer.unsigned(1);
    writer.unsigned(sequence.0);
    writer.unsigned(2);
    writer.unsigned(anchors.len() as u64);
    writer.unsigned(3);
    writer.bytes(tree::root(&leaves).as_ref());
}

/// Checks each anchor, their number and their order.
pub(super) fn check(anchors: &[Anchor]) -> Result<(), StatementError> {
    check_count(anchors.len() as u64)?;
    for anchor in anchors {
        anchor.check()?;
    }
    for pair in anchors.windows(2) {
        if place(&pair[0]) >= place(&pair[1]) {
            let found = format!("{} partition {} after {}", pair[1].stream, pair[1].partition, pair[0].partition);
            return Err(StatementError::field("anchors", "each partition once, ascending", found));
        }
    }
    Ok(())
}

/// What anchors are in the order of.
fn place(anchor: &Anchor) -> (&str, u32) {
    (&anchor.stream, anchor.partition.0)
}

/// What stands in the unprotected header.
#[derive(Debug)]
enum Carried<'a> {
    All(Vec<&'a [u8]>),
    One { index: u64, path: Vec<Digest>, anchor: &'a [u8] },
}

/// An envelope with an unprotected header, taken apart.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// The envelope with an empty one in its place.
    pub(super) bare: Vec<u8>,
    carried: Carried<'a>,
}

/// Takes an envelope apart. `None` when its unprotected header is empty, or it is no envelope at all.
///
/// # Errors
/// When the unprotected header is not one of the two above.
pub(super) fn take_apart(bytes: &[u8]) -> Result<Option<Parts<'_>>, StatementError> {
    let Some(at) = unprotected_at(bytes).filter(|at| bytes.get(*at).is_some_and(|head| *head != 0xa0)) else {
        return Ok(None);
    };
    let mut reader = Reader::new(&bytes[at..]);
    reader.map_of(1)?;
    let carried = match reader.signed()? {
        ALL => Carried::All(read_all(&mut reader)?),
        ONE => read_one(&mut reader)?,
        other => return Err(StatementError::field("unprotected header", format!("{ALL} or {ONE}"), other)),
    };
    let rest = &bytes[bytes.len() - reader.remaining()..];
    Ok(Some(Parts { bare: [&bytes[..at], &[0xa0], rest].concat(), carried }))
}

/// Where the unprotected header stands.
fn unprotected_at(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes.strip_prefix(&ENVELOPE_HEAD)?);
    reader.bytes().ok()?;
    Some(bytes.len() - reader.remaining())
}

fn read_all<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, CborError> {
    let count = reader.array(ANCHORS_MAX)?;
    (0..count).map(|_| reader.bytes()).collect()
}

fn read_one<'a>(reader: &mut Reader<'a>) -> Result<Carried<'a>, CborError> {
    reader.array_of(3)?;
    let index = reader.unsigned()?;
    let hashes = reader.array(PATH_MAX)?;
    let path = (0..hashes).map(|_| Ok(Digest(reader.fixed()?))).collect::<Result<_, CborError>>()?;
    Ok(Carried::One { index, path, anchor: reader.bytes()? })
}

/// Puts an unprotected header in the place of the empty one.
fn carry(bare: &[u8], header: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    // An envelope that was just written, or was taken apart, has one.
    let at = unprotected_at(bare).unwrap_or(bare.len());
    let mut out = bare[..at].to_vec();
    let mut writer = Writer::new(&mut out);
    writer.map(1);
    header(&mut writer);
    out.extend_from_slice(bare.get(at + 1..).unwrap_or_default());
    out
}

/// The statement out of its signed envelope without anchors.
pub(super) fn with_all(bare: &[u8], anchors: &[Anchor]) -> Vec<u8> {
    carry(bare, |writer| {
        writer.signed(ALL);
        writer.array(anchors.len());
        for anchor in anchors {
            writer.bytes(&anchor.encode());
        }
    })
}

fn with_one(bare: &[u8], index: u64, path: &[Digest], anchor: &[u8]) -> Vec<u8> {
    carry(bare, |writer| {
        writer.signed(ONE);
        writer.array(3);
        writer.unsigned(index);
        writer.array(path.len());
        for hash in path {
            writer.bytes(hash.as_ref());
        }
        writer.bytes(anchor);
    })
}

/// The body of a statement with several anchors: what it carries must be what is signed.
pub(super) fn read_body(parts: &Parts<'_>, sealed: &Sealed) -> Result<(Sequence, Body), StatementError> {
    sealed.expect_type(CONTENT_TYPE)?;
    let Carried::All(carried) = &parts.carried else {
        let found = "an entry of the log, which is no statement";
        return Err(StatementError::field("unprotected header", "all anchors", found));
    };
    let signed = Summary::read(sealed.payload())?;
    if carried.len() as u64 != signed.count {
        return Err(StatementError::field("anchors", format!("{}, as is signed", signed.count), carried.len()));
    }
    let leaves: Vec<Digest> = carried.iter().map(|anchor| tree::leaf_hash(anchor)).collect();
    let root = tree::root(&leaves);
    if root != signed.root {
        return Err(StatementError::field("anchors root", signed.root.to_string(), root));
    }
    let anchors = carried.iter().map(|anchor| Anchor::decode(anchor)).collect::<Result<_, _>>()?;
    Ok((signed.sequence, Body::Anchors(anchors)))
}

/// What the log holds of a statement: the statement itself, or one entry for each of its anchors, in their order.
///
/// The bytes are those of a statement that decoded; of others the answer means nothing.
#[must_use]
pub fn log_entries(statement: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let Ok(Some(Parts { bare, carried: Carried::All(anchors) })) = take_apart(statement) else {
        return vec![Cow::Borrowed(statement)];
    };
    let mut places = Log::new();
    for anchor in &anchors {
        places.append(tree::leaf_hash(anchor));
    }
    let size = places.size();
    let entry = |(index, anchor): (u64, &&[u8])| {
        // A place within the tree has a path.
        let path = places.inclusion_path(LeafIndex(index), size).unwrap_or_default();
        Cow::Owned(with_one(&bare, index, &path, anchor))
    };
    (0..).zip(&anchors).map(entry).collect()
}

/// As [`log_entries`], the one at `index` alone.
#[must_use]
pub fn log_entry(statement: &[u8], index: LeafIndex) -> Option<Cow<'_, [u8]>> {
    let Ok(Some(Parts { bare, carried: Carried::All(anchors) })) = take_apart(statement) else {
        return (index.0 == 0).then_some(Cow::Borrowed(statement));
    };
    let leaves: Vec<Digest> = anchors.iter().map(|anchor| tree::leaf_hash(anchor)).collect();
    let anchor = anchors.get(usize::try_from(index.0).ok()?)?;
    let path = tree::inclusion_path(&leaves, index).ok()?;
    Some(Cow::Owned(with_one(&bare, index.0, &path, anchor)))
}

/// Where an anchor stands among those that were signed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorPlace {
    /// Its place, from 0.
    pub index: LeafIndex,
    /// How many there are.
    pub count: TreeSize,
    /// The signed root over them.
    pub root: Digest,
    /// Hashes from the anchor up to that root.
    pub path: Vec<Digest>,
}

/// An anchor as the log holds it: alone in its statement, or out of one with several.
///
/// That it decoded says nothing about who signed it: [`LoggedAnchor::verify`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedAnchor {
    anchor: Anchor,
    /// Hash of the anchor as a leaf among its statement's.
    leaf: Digest,
    place: Option<AnchorPlace>,
    sealed: Sealed,
    id: Digest,
}

impl LoggedAnchor {
    /// Decodes an entry of the log, strictly.
    ///
    /// # Errors
    /// When the bytes are no such entry, or a field holds what it may not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (anchor, leaf, place, sealed) = match take_apart(super::check_length(bytes)?)? {
            None => {
                let (Statement { body, .. }, sealed) = Sealed::open_statement(bytes)?;
                let Body::Anchor(anchor) = body else {
                    return Err(StatementError::field("content type", "an anchor's", body.content_type()));
                };
                (anchor, Digest::ZERO, None, sealed)
            }
            Some(parts) => Self::out_of_several(&parts)?,
        };
        Ok(Self { anchor, leaf, place, sealed, id: statement_id(bytes) })
    }

    fn out_of_several(parts: &Parts<'_>) -> Result<(Anchor, Digest, Option<AnchorPlace>, Sealed), StatementError> {
        let sealed = Sealed::open(&parts.bare)?;
        sealed.expect_type(CONTENT_TYPE)?;
        let Carried::One { index, path, anchor: bytes } = &parts.carried else {
            let found = "all anchors of a statement";
            return Err(StatementError::field("unprotected header", "one anchor", found));
        };
        let signed = Summary::read(sealed.payload())?;
        let anchor = Anchor::decode(bytes)?;
        anchor.check()?;
        let (index, count) = (LeafIndex(*index), TreeSize(signed.count));
        let place = AnchorPlace { index, count, root: signed.root, path: path.clone() };
        Ok((anchor, tree::leaf_hash(bytes), Some(place), sealed))
    }

    /// What is said. Not yet verified.
    #[must_use]
    pub const fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Takes what is said. Not yet verified.
    #[must_use]
    pub fn into_anchor(self) -> Anchor {
        self.anchor
    }

    /// Who is said to have signed.
    #[must_use]
    pub const fn signer(&self) -> IdentityId {
        self.sealed.signer()
    }

    /// Its place among the anchors of its statement; `None` when it is the only one.
    #[must_use]
    pub const fn place(&self) -> Option<&AnchorPlace> {
        self.place.as_ref()
    }

    /// The anchor's id: SHA-256 of the entry.
    #[must_use]
    pub const fn id(&self) -> Digest {
        self.id
    }

    /// Checks that `key` signed the statement for `chain`, and that the anchor is of that statement.
    ///
    /// # Errors
    /// [`StatementError::Signature`] or [`StatementError::Place`].
    pub fn verify(&self, key: &PublicKey, chain: &ChainTag) -> Result<(), StatementError> {
        self.sealed.verify(key, chain)?;
        self.verify_place()
    }

    /// Checks that the anchor is of its statement, whoever signed that.
    ///
    /// # Errors
    /// [`StatementError::Place`].
    pub fn verify_place(&self) -> Result<(), StatementError> {
        let Some(place) = &self.place else { return Ok(()) };
        Ok(tree::verify_inclusion(&self.leaf, place.index, place.count, &place.path, &place.root)?)
    }
}

#[cfg(test)]
#[path = "anchors_tests.rs"]
mod tests;
