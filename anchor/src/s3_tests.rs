//! The store of segments in a bucket of a real S3 server: made once, never written over, read verified.

use crate::roots::{AnchoredObject, Roots, SEGMENTS_FOLDER};
use crate::s3::{S3Config, S3Credentials, S3Location};
use crate::s3_server::S3;
use crate::seal::tests::sealed;
use crate::store::SegmentStore;
use crate::verified::Kind;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::sync::Arc;

const BUCKET: &str = "city-records";
const FOLDER: &str = "anchored/here";

fn bucket(endpoint: String) -> SegmentStore {
    let location = S3Location { bucket: BUCKET.into(), prefix: FOLDER.into() };
    let config = S3Config { endpoint: Some(endpoint), timeout_ms: 5_000, ..S3Config::default() };
    let credentials = S3Credentials { key_id: "city".into(), secret_key: "secret".into(), session_token: None };
    SegmentStore::on_s3(&location, &config, &credentials, None).unwrap()
}

#[tokio::test]
async fn objects_in_a_bucket_are_made_once_and_read_verified() {
    let Some(server) = S3::start(BUCKET) else { return };
    let store = bucket(server.endpoint());
    let none: Vec<_> = store.list().unwrap().try_collect().await.unwrap();
    assert_eq!(none, []);
    let sealed = sealed(20_000, 0);
    store.put(&sealed).await.unwrap();
    store.put(&sealed).await.expect("the same bytes again change nothing");

    let object = Arc::new(AnchoredObject::from_anchor(&sealed.anchor, 5).unwrap());
    let listed: Vec<_> = store.list().unwrap().map_ok(|meta| meta.location).try_collect().await.unwrap();
    assert_eq!(listed, [object.path.clone(), object.outboard_path()]);
    assert!(object.path.as_ref().starts_with(SEGMENTS_FOLDER));
    let verified = || {
        let roots = Arc::new(Roots::new());
        roots.insert(Arc::clone(&object));
        store.verified(roots).unwrap()
    };
    assert_eq!(verified().get(&object.path).await.unwrap().bytes().await.unwrap(), sealed.segment);
    let ends = [0..100, object.size - 100..object.size];
    let read = verified().read(&object, &ends).await.unwrap();
    assert_eq!(read[1], sealed.segment[sealed.segment.len() - 100..]);

    // Somebody with rights to the bucket flips one bit: of the segment, then of its hash tree.
    for path in [object.path.clone(), object.outboard_path()] {
        let place = format!("{BUCKET}/{FOLDER}/{path}");
        let good = server.get(&place);
        let mut bad = good.clone();
        let at = good.len() / 2;
        bad[at] ^= 4;
        server.replace(&place, &bad);
        let error = verified().check_whole(&object).await.unwrap_err();
        assert_eq!((error.path.as_str(), error.kind()), (path.as_ref(), Kind::Corrupted), "{error}");
        let error = store.put(&sealed).await.unwrap_err();
        assert!(error.path == path.as_ref() && error.reason.contains("with other content"), "{error}");
        assert_eq!(server.get(&place), bad, "what is there is left as evidence");
        server.replace(&place, &good);
    }
    store.put(&sealed).await.unwrap();
    verified().check_whole(&object).await.unwrap();
}

#[tokio::test]
async fn a_bucket_out_of_reach_is_said_and_is_no_fault_of_the_object() {
    let store = bucket(format!("http://127.0.0.1:{}", crate::s3_server::free_port()));
    let sealed = sealed(10, 0);
    let error = store.put(&sealed).await.unwrap_err();
    assert!(error.path == sealed.anchor.segment.path && error.store.contains(BUCKET), "{error}");
    let object = Arc::new(AnchoredObject::from_anchor(&sealed.anchor, 5).unwrap());
    let error = store.verified(Arc::new(Roots::new())).unwrap().check_whole(&object).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}
