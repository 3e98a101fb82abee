//! What profiles of Azure become.

use rc_daemon::config::{ConfigSources, Settings};

use super::*;
use crate::config::{BINARY, Config, KNOBS, read};
use crate::decide::{Method, MinimumChildren, Target};
use crate::monitor::{ProbeAsk, Watch};

/// As `az network traffic-manager profile show` prints it.
const SHOWN: &str = r#"{
  "id": "/subscriptions/0/resourceGroups/g/providers/Microsoft.Network/trafficManagerProfiles/Parent",
  "name": "Parent", "type": "Microsoft.Network/trafficManagerProfiles", "location": "global",
  "profileStatus": "Enabled", "trafficRoutingMethod": "Performance", "maxReturn": null,
  "dnsConfig": { "relativeName": "www", "fqdn": "www.trafficmanager.net", "ttl": 60 },
  "monitorConfig": {
    "profileMonitorStatus": "Online", "protocol": "HTTPS", "port": 8443, "path": "/health",
    "intervalInSeconds": 10, "timeoutInSeconds": 5, "toleratedNumberOfFailures": 2,
    "customHeaders": [{ "name": "Host", "value": "inner.example.net" }],
    "expectedStatusCodeRanges": [{ "min": 200, "max": 202 }, { "min": 301, "max": 301 }]
  },
  "endpoints": [
    { "name": "eu", "type": "Microsoft.Network/trafficManagerProfiles/azureEndpoints",
      "target": "eu.azurewebsites.net", "targetResourceId": "/x/y", "endpointStatus": "Enabled",
      "endpointLocation": "West Europe", "weight": 1, "priority": 1, "endpointMonitorStatus": "Online",
      "subnets": [{ "first": "198.51.100.0", "last": null, "scope": 24 },
                  { "first": "203.0.113.4", "last": "203.0.113.9", "scope": null }] },
    { "name": "us", "type": "Microsoft.Network/trafficManagerProfiles/nestedEndpoints",
      "targetResourceId": "/subscriptions/0/providers/Microsoft.Network/trafficManagerProfiles/child",
      "endpointStatus": "Disabled", "endpointLocation": "East US", "weight": 1, "priority": 2,
      "minChildEndpoints": 2, "minChildEndpointsIPv4": 1, "minChildEndpointsIPv6": null }
  ]
}"#;

/// As a template has it.
const TEMPLATE: &str = r#"{
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "resources": [
    { "type": "Microsoft.Network/dnsZones", "name": "other" },
    { "type": "Microsoft.Network/trafficManagerProfiles", "name": "child",
      "properties": {
        "trafficRoutingMethod": "Weighted", "dnsConfig": { "relativeName": "us" },
        "monitorConfig": { "protocol": "TCP", "port": 443 },
        "endpoints": [
          { "name": "child/one", "type": "Microsoft.Network/TrafficManagerProfiles/ExternalEndpoints",
            "properties": { "target": "8.8.8.8", "weight": 9, "alwaysServe": "Enabled" } },
          { "name": "two", "type": "Microsoft.Network/TrafficManagerProfiles/ExternalEndpoints",
            "properties": { "target": "8.8.4.4", "geoMapping": ["GEO-EU", "US-CA"] } }
        ]
      }
    }
  ]
}"#;

fn zone() -> DnsName {
    "tm.example.org".parse().unwrap()
}

fn configured(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tm.toml");
    std::fs::write(&file, text).unwrap();
    let settings = Settings::load(ConfigSources::new(BINARY).file(&file), KNOBS);
    read(&settings).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn what_azure_shows_becomes_a_configuration_that_is_taken() {
    let config = configured(&import([("a", SHOWN), ("b", TEMPLATE)], &zone()).unwrap());
    let [parent, child] = config.zones.profiles() else { panic!("two profiles") };
    assert_eq!((parent.name.as_str(), parent.ttl.seconds()), ("www.tm.example.org", 60));
    assert_eq!((parent.method, child.method), (Method::Performance, Method::Weighted));
    let [eu, us] = parent.endpoints() else { panic!("two endpoints") };
    assert_eq!(eu.target, Target::Name("eu.azurewebsites.net".parse().unwrap()));
    assert_eq!(eu.location.as_ref().unwrap().to_string(), "westeurope");
    let subnets: Vec<String> = eu.subnets.iter().map(ToString::to_string).collect();
    assert_eq!(subnets, ["198.51.100.0/24", "203.0.113.4-203.0.113.9"]);
    assert_eq!(us.target, Target::Nested { profile: 1, minimum: MinimumChildren { any: 2, v4: 1, v6: 0 } });
    assert_eq!((us.enabled, us.priority), (false, 2));
    let [one, two] = child.endpoints() else { panic!("two endpoints") };
    assert_eq!((one.name.as_str(), one.weight, one.always_serve), ("one", 9, true));
    assert_eq!(two.regions.len(), 2);
}

#[test]
fn probes_are_carried_over() {
    let config = configured(&import([("a", SHOWN), ("b", TEMPLATE)], &zone()).unwrap());
    let eu = &config.endpoints[0];
    let Watch::Probed(plan) = eu.watch else { panic!("probed") };
    assert_eq!((plan.interval.as_secs(), plan.timeout.as_secs(), plan.tolerated_failures), (10, 5, 2));
    let ProbeAsk::Http(probe) = &eu.target.as_ref().unwrap().ask else { panic!("HTTP") };
    assert_eq!((probe.secure, probe.path.as_str()), (true, "/health"));
    assert_eq!(probe.expected, [200..=202, 301..=301]);
    assert_eq!(probe.headers, [("Host".to_owned(), "inner.example.net".to_owned())]);
    let last = config.endpoints.iter().find(|endpoint| endpoint.name == "two").unwrap();
    assert_eq!(last.target.as_ref().unwrap().ask, ProbeAsk::Tcp);
}

#[test]
fn lists_and_named_resources_are_read_as_well() {
    let profile = r#"{"name":"p","properties":{"trafficRoutingMethod":"Priority","dnsConfig":{"relativeName":"p"},
        "monitorConfig":{"protocol":"TCP","port":1}}}"#;
    for whole in [
        format!("[{profile}]"),
        format!("{{\"value\":[{profile}]}}"),
        format!("{{\"resources\":{{\"p\":{profile}}}}}"),
    ] {
        assert!(
            import([("a", whole.as_str())], &zone()).unwrap().contains("name = \"p.tm.example.org\""),
            "{whole}"
        );
    }
}

#[test]
fn everything_that_cannot_be_carried_over_is_told_at_once() {
    let broken = SHOWN
        .replace("\"HTTPS\"", "\"[parameters('protocol')]\"")
        .replace("\"target\": \"eu.azurewebsites.net\", ", "")
        .replace("\"profileStatus\": \"Enabled\"", "\"profileStatus\": \"Odd\"");
    let problems = import([("a", broken.as_str()), ("b", "{}"), ("c", "{")], &zone()).unwrap_err();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for expected in [
        "b: there is no traffic manager profile in it",
        "c: is no JSON",
        "profile Parent: profileStatus is \"Odd\"",
        "profile Parent: protocol is an expression",
        "profile Parent, endpoint eu: has no target",
        "profile Parent, endpoint us: its profile",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert_eq!(problems.len(), 6, "{text}");
}

#[test]
fn odd_names_stay_inside_their_quotes() {
    let odd = SHOWN.replace("\"name\": \"eu\"", "\"name\": \"e\\\"u\\n[x]\\u007f\"");
    let config = configured(&import([("a", odd.as_str()), ("b", TEMPLATE)], &zone()).unwrap());
    assert_eq!(config.endpoints[0].name, "e\"u\n[x]\u{7f}");
}
