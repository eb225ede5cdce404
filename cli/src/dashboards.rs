//! Tests alone: what stands in `dashboards/` and `docker-compose.yml` has to agree with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Ports;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Every word in `text` that begins with `cairn_`.
fn words(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = text.match_indices("cairn_").map(|(start, _)| start);
    let whole = starts.filter(|start| !text[..*start].ends_with(|c: char| word(c) || c == '-'));
    whole.map(|start| text[start..].chars().take_while(|c| word(*c)).collect()).collect()
}

/// Names of metrics in the sources: string literals that begin with `cairn_`.
fn metrics_of(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            metrics_of(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("dashboards.rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(text.split('"').filter(|literal| words(literal).contains(*literal)).map(str::to_owned));
        }
    }
}

#[test]
fn every_metric_on_the_dashboard_and_in_the_alerts_exists_in_the_code() {
    let mut known = BTreeSet::new();
    for member in ["chain/node/src", "anchor/src", "ingest/src", "query/src", "cli/src"] {
        metrics_of(&root().join(member), &mut known);
    }
    assert!(known.contains("cairn_chain_height"), "{known:?}");
    for file in ["dashboards/cairn-anchoring-lag.json", "dashboards/alerts.yml"] {
        let used = words(&read(file));
        assert!(used.len() > 5, "{file}: {used:?}");
        for name in used {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let exists = known.contains(&name) || of_histogram.is_some_and(|name| known.contains(name));
            assert!(exists || name == "cairn_quarantine", "{file}: {name} is not a metric of the code: {known:?}");
        }
    }
}

#[test]
fn the_dashboard_is_json_with_unique_panels_that_all_ask_the_provisioned_source() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("dashboards/cairn-anchoring-lag.json")).unwrap();
    let source = read("dashboards/provisioning/datasources/prometheus.yml");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id {}", panel["id"]);
        if panel["type"] == "row" {
            continue;
        }
        let uid = panel["datasource"]["uid"].as_str().unwrap();
        assert!(source.contains(&format!("uid: {uid}\n")), "{}: {uid}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let depth = |open, close| expression.matches(open).count() == expression.matches(close).count();
            assert!(depth('(', ')') && depth('{', '}') && depth('[', ']'), "{expression}");
        }
    }
    assert!(ids.len() > 15);
}

#[test]
fn ports_in_containers_and_scrapes_are_those_of_a_network_by_default() {
    // What `cairn init` takes without --base-port; docker-compose.yml gives it none.
    let ports = Ports(26_600);
    assert!(!read("docker-compose.yml").contains("--base-port"));
    let (compose, scrape) = (read("docker-compose.yml"), read("dashboards/prometheus.yml"));
    for index in 0..4 {
        let port = ports.api(index);
        assert!(compose.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "validator {index}: {port}");
        assert!(compose.contains(&format!("/dev/tcp/127.0.0.1/{port} ")), "validator {index}: {port}");
        assert!(scrape.contains(&format!("- validator-{index}:{port}\n")), "validator {index}: {port}");
    }
    let (sql, ingest, query) = (ports.postgres(), ports.ingest_metrics(), ports.query_metrics());
    assert!(compose.contains(&format!("\"127.0.0.1:{sql}:{sql}\"")));
    for (role, port) in [("ingest", ingest), ("query", query)] {
        assert!(scrape.contains(&format!("\"{role}:{port}\"")), "{role}: {port}");
        assert!(compose.contains(&format!("/dev/tcp/127.0.0.1/{port} ")), "{role}: {port}");
    }
    let published = compose.lines().filter(|line| line.trim_start().starts_with("ports:"));
    let open: Vec<&str> = published.filter(|line| !line.contains("[\"127.0.0.1:")).collect();
    assert!(open.is_empty(), "published beyond loopback: {open:?}");
}
