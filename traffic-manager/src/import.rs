//! Makes a configuration of what Azure says of a profile.
//!
//! It takes what `az network traffic-manager profile show` or `list` prints, answers of the REST interface, and ARM
//! templates (also those that Bicep makes) whose values are plain. Whether every value is in range is for the
//! configuration to check; here everything that cannot be carried over is told at once.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use crate::name::DnsName;

/// Problems that are told.
const PROBLEMS_MAX: usize = 100;
/// How deep resources may be inside each other.
const DEPTH_MAX: usize = 8;

/// What cannot be carried over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ImportProblem {
    /// The document, profile and endpoint.
    pub place: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A configuration with the profiles of all documents, each a name and its JSON, as names in `zone`.
///
/// # Errors
/// Everything that cannot be carried over, at most 100 problems.
pub fn import<'d>(
    documents: impl IntoIterator<Item = (&'d str, &'d str)>,
    zone: &DnsName,
) -> Result<String, Vec<ImportProblem>> {
    let mut import = Import { zone: zone.to_string(), ..Import::default() };
    let mut found = Vec::new();
    for (document, text) in documents {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => {
                let before = found.len();
                collect(value, &mut found, DEPTH_MAX);
                if found.len() == before {
                    import.reject(document, "there is no traffic manager profile in it");
                }
            }
            Err(error) => import.reject(document, format_args!("is no JSON: {error}")),
        }
    }
    for profile in &found {
        import.learn_name(profile);
    }
    for profile in &found {
        import.profile(profile);
    }
    if !import.problems.is_empty() {
        return Err(import.problems);
    }
    Ok(format!(
        "# Made from Azure Traffic Manager. `azure.strict` keeps to what Azure takes.\n[azure]\nstrict = true\n\n\
         [[zone]]\nname = {}\n{}",
        quoted(&import.zone),
        import.text
    ))
}

/// An object whose `properties` are its own, as `az` prints them.
type Object = Map<String, Value>;

fn flattened(value: &Value) -> Option<Object> {
    let mut object = value.as_object()?.clone();
    if let Some(Value::Object(properties)) = object.remove("properties") {
        object.extend(properties);
    }
    Some(object)
}

/// Finds the profiles in a document.
fn collect(value: Value, found: &mut Vec<Object>, depth: usize) {
    if depth == 0 {
        return;
    }
    if let Value::Array(items) = value {
        for item in items {
            collect(item, found, depth);
        }
        return;
    }
    let Some(mut object) = flattened(&value) else { return };
    if object.contains_key("trafficRoutingMethod") {
        found.push(object);
        return;
    }
    for key in ["resources", "value"] {
        match object.remove(key) {
            // Newer templates name their resources.
            Some(Value::Object(named)) => {
                collect(
                    Value::Array(named.into_iter().map(|(_, resource)| resource).collect()),
                    found,
                    depth - 1,
                );
            }
            Some(list) => collect(list, found, depth - 1),
            None => {}
        }
    }
}

#[derive(Debug, Default)]
struct Import {
    zone: String,
    text: String,
    problems: Vec<ImportProblem>,
    /// DNS names by the names of resources, which nested endpoints use.
    names: BTreeMap<String, String>,
}

impl Import {
    fn reject(&mut self, place: &str, what: impl fmt::Display) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(ImportProblem { place: place.to_owned(), what: what.to_string() });
        }
    }

    fn learn_name(&mut self, profile: &Object) {
        let relative =
            profile.get("dnsConfig").and_then(|dns| dns.get("relativeName")).and_then(Value::as_str);
        if let (Some(name), Some(relative)) = (profile.get("name").and_then(Value::as_str), relative) {
            self.names.insert(name.to_ascii_lowercase(), format!("{relative}.{}", self.zone));
        }
    }

    fn profile(&mut self, profile: &Object) {
        let name = profile.get("name").and_then(Value::as_str).unwrap_or("(without a name)").to_owned();
        let place = format!("profile {name}");
        let Some(dns_name) = self.names.get(&name.to_ascii_lowercase()).cloned() else {
            self.reject(&place, "has no name or no dnsConfig.relativeName");
            return;
        };
        let mut table = Table::new("profile");
        table.text("name", &dns_name);
        self.copy(
            &place,
            profile,
            &mut table,
            &[("trafficRoutingMethod", "method"), ("maxReturn", "max_return")],
        );
        self.status(&place, profile, "profileStatus", &mut table);
        if let Some(dns) = profile.get("dnsConfig").and_then(flattened) {
            self.copy(&place, &dns, &mut table, &[("ttl", "ttl")]);
        }
        self.record_type(&place, profile, &mut table);
        if let Some(monitor) = profile.get("monitorConfig").and_then(flattened) {
            self.monitor(&place, &monitor, &mut table);
        }
        self.text.push_str(&table.0);
        for endpoint in profile.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            if let Some(endpoint) = flattened(endpoint) {
                self.endpoint(&place, &dns_name, &endpoint);
            }
        }
    }

    fn monitor(&mut self, place: &str, monitor: &Object, table: &mut Table) {
        let keys = [
            ("protocol", "protocol"),
            ("port", "probe_port"),
            ("path", "probe_path"),
            ("toleratedNumberOfFailures", "tolerated_failures"),
        ];
        self.copy(place, monitor, table, &keys);
        for (key, ours) in [("intervalInSeconds", "interval"), ("timeoutInSeconds", "timeout")] {
            match monitor.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::Number(seconds)) => table.text(ours, &format!("{seconds}s")),
                Some(other) => self.reject(place, format_args!("{key} is {other}, not a number")),
            }
        }
        self.headers(place, monitor, table);
        let ranges = list(monitor, "expectedStatusCodeRanges");
        let texts: Vec<String> = ranges
            .filter_map(|range| {
                let code = |key| range.get(key).and_then(Value::as_u64);
                let (min, max) = (code("min")?, code("max")?);
                Some(if min == max { min.to_string() } else { format!("{min}-{max}") })
            })
            .collect();
        table.list("expected_status", &texts);
    }

    fn endpoint(&mut self, place: &str, profile: &str, endpoint: &Object) {
        let name = endpoint.get("name").and_then(Value::as_str).unwrap_or("(without a name)");
        let place = format!("{place}, endpoint {name}");
        let kind = endpoint.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        let mut table = Table::new("endpoint");
        table.text("profile", profile);
        // Templates name an endpoint by its path.
        table.text("name", name.rsplit('/').next().unwrap_or(name));
        if kind.ends_with("nestedendpoints") {
            self.nested(&place, endpoint, &mut table);
        } else {
            if kind.ends_with("azureendpoints") {
                table.text("kind", "azure");
            } else if !kind.ends_with("externalendpoints") {
                self.reject(&place, format_args!("the type {kind:?} is not known"));
            }
            match endpoint.get("target").and_then(Value::as_str) {
                Some(target) if target.parse::<std::net::IpAddr>().is_ok() => table.text("address", target),
                Some(target) if !target.is_empty() => table.text("target", target),
                Some(_) | None => {
                    let what = "has no target; export what runs: az network traffic-manager profile show";
                    self.reject(&place, what);
                }
            }
        }
        self.status(&place, endpoint, "endpointStatus", &mut table);
        if endpoint.get("alwaysServe").and_then(Value::as_str) == Some("Enabled") {
            table.line("always_serve", "true");
        }
        let keys = [("weight", "weight"), ("priority", "priority"), ("endpointLocation", "location")];
        self.copy(&place, endpoint, &mut table, &keys);
        let regions: Vec<String> =
            list(endpoint, "geoMapping").filter_map(Value::as_str).map(str::to_owned).collect();
        table.list("regions", &regions);
        self.subnets(&place, endpoint, &mut table);
        self.headers(&place, endpoint, &mut table);
        self.text.push_str(&table.0);
    }

    fn nested(&mut self, place: &str, endpoint: &Object, table: &mut Table) {
        let resource = endpoint.get("targetResourceId").and_then(Value::as_str).unwrap_or_default();
        let child = resource.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        match self.names.get(&child) {
            Some(name) => table.text("nested", name),
            None => {
                let what = format!(
                    "its profile {resource:?} is in none of the documents; give its document as well"
                );
                self.reject(place, what);
            }
        }
        let keys = [
            ("minChildEndpoints", "min_children"),
            ("minChildEndpointsIPv4", "min_children_ipv4"),
            ("minChildEndpointsIPv6", "min_children_ipv6"),
        ];
        self.copy(place, endpoint, table, &keys);
    }

    fn subnets(&mut self, place: &str, endpoint: &Object, table: &mut Table) {
        let mut texts = Vec::new();
        for subnet in list(endpoint, "subnets") {
            let first = subnet.get("first").and_then(Value::as_str);
            let last = subnet.get("last").and_then(Value::as_str);
            let scope = subnet.get("scope").and_then(Value::as_u64);
            match (first, last, scope) {
                (Some(first), None, None) => texts.push(first.to_owned()),
                (Some(first), Some(last), None) => texts.push(format!("{first}-{last}")),
                (Some(first), None, Some(scope)) => texts.push(format!("{first}/{scope}")),
                _ => self.reject(place, format_args!("{subnet} is no subnet")),
            }
        }
        table.list("subnets", &texts);
    }

    fn headers(&mut self, place: &str, of: &Object, table: &mut Table) {
        let mut texts = Vec::new();
        for header in list(of, "customHeaders") {
            let part = |key| header.get(key).and_then(Value::as_str);
            match (part("name"), part("value")) {
                (Some(name), Some(value)) => texts.push(format!("{name}: {value}")),
                _ => self.reject(place, format_args!("{header} is no header")),
            }
        }
        table.list("probe_headers", &texts);
    }

    fn record_type(&mut self, place: &str, profile: &Object, table: &mut Table) {
        let allowed: Vec<&str> =
            list(profile, "allowedEndpointRecordTypes").filter_map(Value::as_str).collect();
        match allowed.as_slice() {
            [] | ["Any"] => {}
            ["IPv4Address"] => table.text("record_type", "A"),
            ["IPv6Address"] => table.text("record_type", "AAAA"),
            ["DomainName"] => table.text("record_type", "CNAME"),
            other => {
                self.reject(place, format_args!("it is bound to {other:?}; only one record type can be"))
            }
        }
    }

    fn status(&mut self, place: &str, of: &Object, key: &str, table: &mut Table) {
        match of.get(key).and_then(Value::as_str) {
            None | Some("Enabled") => {}
            Some("Disabled") => table.line("enabled", "false"),
            Some(other) => self.reject(place, format_args!("{key} is {other:?}, not Enabled or Disabled")),
        }
    }

    /// Carries plain values over under our names.
    fn copy(&mut self, place: &str, from: &Object, table: &mut Table, keys: &[(&str, &str)]) {
        for (key, ours) in keys {
            match from.get(*key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.starts_with('[') => {
                    let what = format!("{key} is an expression; export the profile itself: {text}");
                    self.reject(place, what);
                }
                Some(Value::String(text)) => table.text(ours, text),
                Some(Value::Number(number)) => table.line(ours, &number.to_string()),
                Some(other) => self.reject(place, format_args!("{key} is {other}, not text or a number")),
            }
        }
    }
}

fn list<'o>(of: &'o Object, key: &str) -> impl Iterator<Item = &'o Value> + use<'o> {
    of.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A table of the configuration.
struct Table(String);

impl Table {
    fn new(name: &str) -> Self {
        Self(format!("\n[[{name}]]\n"))
    }

    fn line(&mut self, key: &str, value: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.line(key, &quoted(value));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            self.line(key, &format!("[{}]", values.join(", ")));
        }
    }
}

/// A basic string of TOML: that of JSON, but for one character.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
