//! Walks over forged epoch ends: the right one leads to the last committee, and each broken link is refused.

use super::*;
use crate::certificate::forge;
use crate::genesis::{GENESIS_MARK, GenesisValidator};
use crate::identity::SigningKey;
use crate::parameters::Parameters;

const EPOCH_BLOCKS: u64 = 10;

fn keys(seeds: std::ops::RangeInclusive<u8>) -> Vec<SigningKey> {
    seeds.map(|seed| SigningKey::from_seed(&[seed; 32])).collect()
}

fn committee(keys: &[SigningKey]) -> Committee {
    Committee::of_genesis(keys.iter().map(SigningKey::public).collect())
}

fn genesis() -> Genesis {
    let validator =
        |key: &SigningKey| GenesisValidator { name: "v".into(), public_key: key.public(), address: "v:7000".into() };
    let genesis = Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "city".into(),
        timestamp_ms: 1,
        validators: keys(1..=4).iter().map(validator).collect(),
        identities: vec![],
        parameters: Parameters { epoch_blocks: EPOCH_BLOCKS, ..Parameters::default() },
    };
    genesis.check().unwrap();
    genesis
}

/// A header of `height` under the committee `now`, naming `next`.
fn header(height: u64, now: &[SigningKey], next: &[SigningKey]) -> Header {
    Header {
        epoch: height / EPOCH_BLOCKS,
        view: height % EPOCH_BLOCKS + 1,
        height: Height(height),
        validators_hash: committee(now).hash(),
        next_validators_hash: committee(next).hash(),
        ..genesis().header()
    }
}

fn certified(header: &Header, by: &[SigningKey], next: &[SigningKey]) -> CommitteeChange {
    let signers: Vec<_> = (0..quorum(by.len())).collect();
    CommitteeChange {
        header: Base64Bytes(header.encode()),
        certificate: Base64Bytes(forge::certificate(header, by, &signers, &genesis().tag())),
        validators: committee(next).keys().to_vec(),
    }
}

fn change(height: u64, now: &[SigningKey], next: &[SigningKey]) -> CommitteeChange {
    certified(&header(height, now, next), now, next)
}

fn refused(changes: &[CommitteeChange]) -> String {
    walk(&genesis(), changes).unwrap_err().to_string()
}

#[test]
fn a_committee_is_ascending_and_not_empty() {
    let keys = committee(&keys(1..=4)).keys().to_vec();
    assert_eq!(Committee::new(keys.clone()).unwrap(), genesis().committee());
    assert_eq!(genesis().committee().hash(), genesis().header().validators_hash);
    let swapped = vec![keys[1], keys[0]];
    assert_eq!(Committee::new(swapped), Err(CommitteeError::Order { key: keys[0] }));
    assert_eq!(Committee::new(vec![keys[0], keys[0]]), Err(CommitteeError::Order { key: keys[0] }));
    assert_eq!(Committee::new(vec![]), Err(CommitteeError::Size { found: 0 }));
    let stranger = SigningKey::from_seed(&[9; 32]).public();
    let committee = genesis().committee();
    assert!(committee.contains(&keys[2]) && !committee.contains(&stranger));
    assert_eq!((committee.place(&keys[2]), committee.place(&stranger)), (Some(2), None));
    assert_eq!((committee.len(), committee.quorum()), (4, 3));
}

#[test]
fn more_than_128_are_refused() {
    let mut keys: Vec<_> = (0..=u8::MAX).take(129).map(|seed| SigningKey::from_seed(&[seed; 32]).public()).collect();
    keys.sort();
    assert_eq!(Committee::new(keys.clone()), Err(CommitteeError::Size { found: 129 }));
    keys.pop();
    Committee::new(keys).unwrap();
}

#[test]
fn a_walk_leads_from_the_genesis_to_the_last_committee() {
    let (four, seven, five) = (keys(1..=4), keys(1..=7), keys(3..=7));
    assert_eq!(walk(&genesis(), &[]).unwrap(), Trusted { committee: committee(&four), first_epoch: 0 });
    let changes = [change(29, &four, &seven), change(99, &seven, &five)];
    let once = walk(&genesis(), &changes[..1]).unwrap();
    assert_eq!(once, Trusted { committee: committee(&seven), first_epoch: 3 });
    let twice = walk(&genesis(), &changes).unwrap();
    assert_eq!(twice, Trusted { committee: committee(&five), first_epoch: 10 });

    let last = header(123, &five, &five);
    let proof = certified(&last, &five, &five).certificate.0;
    assert_eq!(twice.check(&genesis(), &last, &proof), Ok(4));
    assert!(once.check(&genesis(), &last, &proof).is_err(), "a change is missing");
    let earlier = header(98, &five, &five);
    let proof = certified(&earlier, &five, &five).certificate.0;
    let error = twice.check(&genesis(), &earlier, &proof).unwrap_err().to_string();
    assert!(error.contains("begins with epoch 10"), "{error}");
}

#[test]
fn the_last_block_of_an_epoch_may_be_certified_in_a_later_view() {
    let (four, seven) = (keys(1..=4), keys(1..=7));
    let good = change(29, &four, &seven);
    let first = header(29, &four, &seven);
    let certificate = forge::certificate_in_view(&first, 14, 11, &four, &[0, 1, 2], &genesis().tag());
    walk(&genesis(), &[CommitteeChange { certificate: Base64Bytes(certificate), ..good }]).unwrap();
}

#[test]
fn every_broken_link_is_refused() {
    let (four, seven, five) = (keys(1..=4), keys(1..=7), keys(3..=7));
    let good = change(29, &four, &seven);
    let with = |change: fn(&mut Header)| {
        let mut header = header(29, &four, &seven);
        change(&mut header);
        certified(&header, &four, &seven)
    };
    let cases: Vec<(&str, CommitteeChange)> = vec![
        ("not a header", CommitteeChange { header: Base64Bytes(vec![1]), ..good.clone() }),
        ("not the last of an epoch", change(28, &four, &seven)),
        ("the header says 3", with(|header| header.epoch = 3)),
        ("chain \"city\", the header of \"town\"", with(|header| header.chain_id = "town".into())),
        ("expected validator set", change(29, &seven, &five)),
        ("does not change", change(29, &four, &four)),
        ("names the next committee", CommitteeChange { validators: committee(&five).keys().to_vec(), ..good.clone() }),
        ("1 to 128 validators", CommitteeChange { validators: vec![], ..good.clone() }),
        ("does not verify", certified(&header(29, &four, &seven), &keys(5..=8), &seven)),
        ("it ends too early", CommitteeChange { certificate: Base64Bytes(vec![]), ..good.clone() }),
    ];
    for (want, broken) in cases {
        let error = refused(&[broken]);
        let want = if want == "not a header" { "CBOR" } else { want };
        assert!(error.starts_with("committee change 0: ") && error.contains(want), "{want}: {error}");
    }
    let mut swapped = good.clone();
    swapped.validators.swap(0, 1);
    assert!(refused(&[swapped]).contains("ascending"));
    let after = change(39, &seven, &five);
    for (index, changes) in [
        (0, vec![after.clone(), good.clone()]),
        (0, vec![after.clone()]),
        (1, vec![good.clone(), good.clone()]),
        (1, vec![good.clone(), change(19, &seven, &five)]),
        (2, vec![good, after.clone(), after]),
    ] {
        assert!(refused(&changes).starts_with(&format!("committee change {index}: ")));
    }
}

#[test]
fn a_committee_without_validators_believes_nothing() {
    let empty = Genesis { validators: vec![], ..genesis() };
    let nobody = header(3, &[], &[]);
    let certificate = forge::certificate(&nobody, &[], &[], &empty.tag());
    let trusted = walk(&empty, &[]).unwrap();
    assert!(trusted.check(&empty, &nobody, &certificate).is_err());
}
