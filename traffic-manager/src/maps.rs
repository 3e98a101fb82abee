//! Reads what is known about askers from the files that the operator names.
//!
//! | file | lines |
//! |---|---|
//! | `latency` | `198.51.100.0/24,west-europe,10`: range of askers, location, round trip in ms |
//! | `nearest` | `198.51.100.0/24,west-europe` or `DE,west-europe`: range or part of the world, nearest location |
//! | `round_trips` | a head line `source,west-europe,…`, then for each location its round trips in ms |
//! | `geography` | `198.51.100.0/24,DE`: range of askers, part of the world; or a database in MaxMind's format (`.mmdb`) |
//!
//! Empty lines and lines that begin with `#` say nothing. Every fault of every file is reported at once, and then
//! nothing of them is used.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::decide::{
    AddressRange, GeoDatabase, GeoRegion, Geography, Latency, Location, Maps, RangeMap, RoundTrips,
};

/// Round trips between cloud regions, for locations that carry such names.
const CLOUD_REGIONS: &str = include_str!("../data/round-trips-ms.csv");
/// A file is at most this large.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Problems of one file that are told.
const PROBLEMS_MAX: usize = 20;
/// A round trip is at most this long.
const ROUND_TRIP_MS_MAX: u32 = 60_000;

/// Where the tables are. Round trips between cloud regions are known without a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapFiles {
    /// Round trips by range of askers.
    pub latency: Option<PathBuf>,
    /// The nearest location by range of askers or part of the world.
    pub nearest: Option<PathBuf>,
    /// Round trips between locations.
    pub round_trips: Option<PathBuf>,
    /// The part of the world by range of askers.
    pub geography: Option<PathBuf>,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct MapProblem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; `None`: the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl MapFiles {
    /// Reads all of them.
    ///
    /// # Errors
    /// Everything that is wrong, at most 20 problems for each file.
    pub fn load(&self) -> Result<Maps, Vec<MapProblem>> {
        let mut problems = Vec::new();
        let measured = read(self.latency.as_deref(), &mut problems, latency).unwrap_or_default();
        let (nearest, nearest_by_region) =
            read(self.nearest.as_deref(), &mut problems, nearest).unwrap_or_default();
        let between = read(self.round_trips.as_deref(), &mut problems, round_trips);
        let between = between.unwrap_or_else(|| round_trips(&mut Lines::new(Path::new(""), CLOUD_REGIONS)));
        let geography = self.geography(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let latency = Latency { measured, nearest, nearest_by_region, between, ..Latency::default() };
        Ok(Maps { geography, latency })
    }

    fn geography(&self, problems: &mut Vec<MapProblem>) -> Geography {
        let Some(path) = &self.geography else { return Geography::Unknown };
        if path.extension().is_none_or(|extension| extension != "mmdb") {
            return read(Some(path), problems, regions).map_or(Geography::Unknown, Geography::Table);
        }
        let database = content(path).and_then(|bytes| {
            GeoDatabase::from_bytes(bytes).map_err(|error| problem(path, None, error.to_string()))
        });
        match database {
            Ok(database) => Geography::Database(database),
            Err(error) => {
                problems.push(error);
                Geography::Unknown
            }
        }
    }
}

fn problem(path: &Path, line: Option<usize>, what: String) -> MapProblem {
    MapProblem { path: path.to_owned(), line, what }
}

fn content(path: &Path) -> Result<Vec<u8>, MapProblem> {
    let failed = |error: std::io::Error| problem(path, None, format!("cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(problem(path, None, format!("is larger than {FILE_BYTES_MAX} bytes")))
    }
}

fn read<T>(
    path: Option<&Path>,
    problems: &mut Vec<MapProblem>,
    parse: impl FnOnce(&mut Lines<'_>) -> T,
) -> Option<T> {
    let path = path?;
    let text = content(path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| problem(path, None, "is no text in UTF-8".to_owned()))
    });
    match text {
        Ok(text) => {
            let mut lines = Lines::new(path, &text);
            let parsed = parse(&mut lines);
            problems.append(&mut lines.problems);
            Some(parsed)
        }
        Err(error) => {
            problems.push(error);
            None
        }
    }
}

/// The lines of a file that say something, and what is wrong with them.
struct Lines<'t> {
    path: &'t Path,
    rest: std::iter::Enumerate<std::str::Lines<'t>>,
    problems: Vec<MapProblem>,
}

impl<'t> Lines<'t> {
    fn new(path: &'t Path, text: &'t str) -> Self {
        Self { path, rest: text.lines().enumerate(), problems: Vec::new() }
    }

    /// The fields of the next line, and its number.
    fn next(&mut self) -> Option<(usize, Vec<&'t str>)> {
        let (at, line) = self.rest.find(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        })?;
        Some((at + 1, line.split(',').map(str::trim).collect()))
    }

    fn reject(&mut self, line: usize, what: impl Display) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem(self.path, Some(line), what.to_string()));
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, line: usize, field: &str) -> Option<T> {
        field.parse().map_err(|error| self.reject(line, error)).ok()
    }

    fn ms(&mut self, line: usize, field: &str) -> Option<u32> {
        let ms = field.parse().ok().filter(|ms| *ms <= ROUND_TRIP_MS_MAX);
        if ms.is_none() {
            self.reject(
                line,
                format_args!("{field:?} is no round trip in whole ms, 0 to {ROUND_TRIP_MS_MAX}"),
            );
        }
        ms
    }
}

fn latency(lines: &mut Lines<'_>) -> RangeMap<Arc<RoundTrips>> {
    let mut rows: BTreeMap<AddressRange, RoundTrips> = BTreeMap::new();
    while let Some((line, fields)) = lines.next() {
        let [range, location, ms] = fields.as_slice() else {
            lines.reject(line, "write <range>,<location>,<ms>");
            continue;
        };
        let (range, location, ms) =
            (lines.parse(line, range), lines.parse::<Location>(line, location), lines.ms(line, ms));
        if let (Some(range), Some(location), Some(ms)) = (range, location, ms)
            && rows.entry(range).or_default().insert(location.clone(), ms).is_some()
        {
            lines.reject(line, format_args!("{range} has {location} twice"));
        }
    }
    rows.into_iter().map(|(range, row)| (range, Arc::new(row))).collect()
}

fn nearest(lines: &mut Lines<'_>) -> (RangeMap<Location>, BTreeMap<GeoRegion, Location>) {
    let mut ranges: BTreeMap<AddressRange, Location> = BTreeMap::new();
    let mut regions: BTreeMap<GeoRegion, Location> = BTreeMap::new();
    while let Some((line, fields)) = lines.next() {
        let [place, location] = fields.as_slice() else {
            lines.reject(line, "write <range or region>,<location>");
            continue;
        };
        let Some(location) = lines.parse::<Location>(line, location) else { continue };
        let is_second = match place.parse::<GeoRegion>() {
            Ok(region) => regions.insert(region, location).is_some(),
            Err(_) => match lines.parse(line, place) {
                Some(range) => ranges.insert(range, location).is_some(),
                None => false,
            },
        };
        if is_second {
            lines.reject(line, format_args!("{place} is there twice"));
        }
    }
    (ranges.into_iter().collect(), regions)
}

fn round_trips(lines: &mut Lines<'_>) -> BTreeMap<Location, RoundTrips> {
    let mut found = BTreeMap::new();
    let Some((head, fields)) = lines.next() else { return found };
    let to: Vec<Option<Location>> =
        fields.into_iter().skip(1).map(|field| lines.parse(head, field)).collect();
    while let Some((line, fields)) = lines.next() {
        let Some((from, values)) = fields.split_first() else { continue };
        if values.len() != to.len() {
            lines.reject(
                line,
                format_args!("there are {} values, and {} locations in the head", values.len(), to.len()),
            );
            continue;
        }
        let from = lines.parse::<Location>(line, from);
        let row: RoundTrips = to
            .iter()
            .zip(values)
            .filter_map(|(to, value)| Some((to.clone()?, lines.ms(line, value)?)))
            .collect();
        if let Some(from) = from
            && found.insert(from, row).is_some()
        {
            lines.reject(line, "this location is there twice");
        }
    }
    found
}

fn regions(lines: &mut Lines<'_>) -> RangeMap<GeoRegion> {
    let mut ranges: BTreeMap<AddressRange, GeoRegion> = BTreeMap::new();
    while let Some((line, fields)) = lines.next() {
        let [range, region] = fields.as_slice() else {
            lines.reject(line, "write <range>,<region>");
            continue;
        };
        let (range, region) = (lines.parse(line, range), lines.parse(line, region));
        if let (Some(range), Some(region)) = (range, region)
            && ranges.insert(range, region).is_some()
        {
            lines.reject(line, format_args!("{range} is there twice"));
        }
    }
    ranges.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads files of this content.
    fn load(files: [&str; 4]) -> Result<Maps, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            (!text.is_empty()).then_some(path)
        };
        let [latency, nearest, round_trips, geography] = files;
        let files = MapFiles {
            latency: file("latency.csv", latency),
            nearest: file("nearest.csv", nearest),
            round_trips: file("trips.csv", round_trips),
            geography: file("geography.csv", geography),
        };
        let prefix = format!("{}/", dir.path().display());
        let shown = |problem: &MapProblem| problem.to_string().replace(&prefix, "");
        files.load().map_err(|problems| problems.iter().map(shown).collect())
    }

    fn ms(maps: &Maps, address: &str, location: &str) -> Option<u32> {
        maps.distances(address.parse().unwrap()).to(&location.parse().unwrap())
    }

    #[test]
    fn the_first_source_that_knows_a_pair_counts() {
        let maps = load([
            "# measured\n198.51.100.0/24,West Europe,7\n",
            "198.51.100.0/24,east-us\nIN,south-india\nWORLD,west-us-2\n",
            "",
            "203.0.113.0/24,IN\n",
        ])
        .unwrap();
        assert_eq!(ms(&maps, "198.51.100.9", "west-europe"), Some(7));
        assert_eq!(ms(&maps, "198.51.100.9", "west-us-2"), ms_between(&maps, "eastus", "westus2"));
        assert_eq!(ms(&maps, "203.0.113.9", "central-india"), Some(25));
        assert_eq!(ms(&maps, "192.0.2.1", "central-us"), Some(41));
        assert_eq!(ms(&maps, "192.0.2.1", "nowhere"), None);
    }

    fn ms_between(maps: &Maps, from: &str, to: &str) -> Option<u32> {
        maps.latency.between[&from.parse().unwrap()].get(&to.parse().unwrap()).copied()
    }

    #[test]
    fn the_round_trips_that_come_with_the_program_are_whole() {
        let mut lines = Lines::new(Path::new("built in"), CLOUD_REGIONS);
        let table = round_trips(&mut lines);
        assert_eq!(lines.problems, Vec::new());
        assert_eq!(table.len(), 14);
        assert!(table.iter().all(|(from, row)| row.len() == 14 && row[from] == 0));
    }

    #[test]
    fn every_fault_of_every_file_is_told_with_its_line() {
        let problems = load([
            "198.51.100.1/24,eu,7\n\n198.51.100.0/24,eu\n10.0.0.0/8,--,70000\n10.0.0.0/8,eu,1\n10.0.0.0/8,eu,2\n",
            "XX,eu\nDE,eu\nDE,us\n",
            "source,a,b\na,0\nb,1,x\n",
            "10.0.0.0/8,GB-ENG\n",
        ])
        .unwrap_err();
        let expected = [
            "latency.csv:1: 198.51.100.1/24 has bits set",
            "latency.csv:3: write <range>,<location>,<ms>",
            "latency.csv:4: the name of a location",
            "latency.csv:4: \"70000\" is no round trip",
            "latency.csv:6: 10.0.0.0/8 has eu twice",
            "nearest.csv:1: \"XX\" is no IP address",
            "nearest.csv:3: DE is there twice",
            "trips.csv:2: there are 1 values, and 2 locations",
            "trips.csv:3: \"x\" is no round trip",
            "geography.csv:1: \"GB-ENG\" is no region",
        ];
        let text = problems.join("\n");
        for expected in expected {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert_eq!(problems.len(), expected.len(), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_or_no_database_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("fake.mmdb");
        std::fs::write(&fake, b"no database").unwrap();
        let files = MapFiles {
            latency: Some(dir.path().join("absent.csv")),
            geography: Some(fake),
            ..MapFiles::default()
        };
        let problems = files.load().unwrap_err();
        assert!(problems[0].what.contains("cannot be read"));
        assert!(problems[1].what.contains("not a database"), "{}", problems[1]);
    }
}
