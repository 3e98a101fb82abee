//! Layers, problems, printing and the reference page, over one small table of knobs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::{ConfigErrors, Kind, Secret, reference};
use crate::exit::Failure;

const KNOBS: &[Knob] = &[
    Knob::optional("region", Kind::Text, "Where it is."),
    Knob::new("listen.address", Kind::SocketAddr, "[::]:443", "Where endpoints connect."),
    Knob::new("listen.backlog", Kind::Integer, "4096", "Connections that wait.")
        .range("1", "65535")
        .unit("connections"),
    Knob::new("timers.keep_alive", Kind::Duration, "15s", "How often an idle link is pinged.")
        .range("1s", "60s")
        .too_small("wastes traffic")
        .too_large("a dead link is noticed late"),
    Knob::new("limits.held", Kind::Size, "16KiB", "Bytes held for a path."),
    Knob::new("limits.ratio", Kind::Number, "0.5", "A share."),
    Knob::new("mesh.seeds", Kind::List(&Kind::HostPort), "", "Brokers to start with."),
    Knob::new("mesh.enabled", Kind::Bool, "true", "Whether there is a mesh."),
    Knob::new("consent.policy", Kind::Choice(&["allow", "ask"]), "ask", "Who decides."),
    Knob::optional("identity.key", Kind::Path, "The private key."),
    Knob::optional("identity.passphrase", Kind::Secret, "For the key."),
    Knob::required("service[].name", Kind::Text, "What a Controller asks for."),
    Knob::new("service[].linger", Kind::Duration, "30s", "How long it stays.").range("0s", "1h"),
    Knob::optional("service[].limits.held", Kind::Size, "Bytes held."),
];

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn with(text: &str) -> (Self, ConfigSources) {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(site.path(), text).unwrap();
        let sources = ConfigSources::new("rc-example").file(site.path());
        (site, sources)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("rc-example.toml")
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn errors(settings: &Settings) -> ConfigErrors {
    settings.reader().finish(()).unwrap_err()
}

/// The problems as lines, with the file's directory left out.
fn lines(site: &Site, settings: &Settings) -> Vec<String> {
    let dir = format!("{}/", site.dir.path().display());
    errors(settings).problems().iter().map(|problem| problem.to_string().replace(&dir, "")).collect()
}

#[test]
fn the_table_of_these_tests_has_no_mistakes() {
    assert_eq!(Knob::mistakes(KNOBS), Vec::<String>::new());
}

#[test]
fn a_table_with_mistakes_is_told_each_of_them() {
    const WRONG: &[Knob] = &[
        Knob::new("a.b", Kind::Duration, "soon", "d"),
        Knob::new("a.b", Kind::Integer, "5", "d").range("9", "1"),
        Knob::new("a", Kind::Integer, "5", ""),
        Knob::new("Upper", Kind::Integer, "5", "d").range("6", "9"),
    ];
    let mistakes = Knob::mistakes(WRONG).join("\n");
    for expected in [
        "a.b: declared twice",
        "a.b: the default is not of the knob's kind",
        "a.b: the bounds are not",
        "a: declared twice, or both a value and a section",
        "a: has no documentation",
        "Upper: a path has lower-case words",
        "Upper: the default is out of range",
    ] {
        assert!(mistakes.contains(expected), "{expected} in\n{mistakes}");
    }
}

#[test]
fn every_value_has_its_default_when_nothing_is_set() {
    let settings = Settings::load(ConfigSources::new("rc-example"), KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.optional::<String>("region"), None);
    assert_eq!(reader.read::<SocketAddr>("listen.address"), "[::]:443".parse().unwrap());
    assert_eq!(reader.read::<u16>("listen.backlog"), 4096);
    assert_eq!(reader.read::<Duration>("timers.keep_alive"), Duration::from_secs(15));
    assert_eq!(reader.read::<usize>("limits.held"), 16 * 1024);
    assert!((reader.read::<f64>("limits.ratio") - 0.5).abs() < 1e-9);
    assert_eq!(reader.read::<Vec<String>>("mesh.seeds"), Vec::<String>::new());
    assert!(reader.read::<bool>("mesh.enabled"));
    assert_eq!(reader.read::<String>("consent.policy"), "ask");
    assert_eq!(reader.optional::<PathBuf>("identity.key"), None);
    assert_eq!(
        reader.unread(),
        ["identity.passphrase", "service[].name", "service[].linger", "service[].limits.held"]
    );
    assert_eq!(reader.optional::<Secret>("identity.passphrase"), None);
    assert_eq!(reader.each("service", |_| ()).len(), 0);
    assert_eq!(reader.unread(), Vec::<&str>::new());
    assert!(reader.finish(()).is_ok());
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let text = "[timers]\nkeep_alive = \"2s\"\n[listen]\nbacklog = 2\naddress = \"127.0.0.1:2\"\n";
    let (_site, sources) = Site::with(text);
    let sources = sources
        .env(env(&[("RC_TIMERS__KEEP_ALIVE", "3s"), ("RC_LISTEN__BACKLOG", "3"), ("UNRELATED__X", "1")]))
        .set("timers.keep_alive=4s")
        .overriding(Override::new("--keep-alive 5s", "timers.keep_alive", "5s"));
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.read::<Duration>("timers.keep_alive"), Duration::from_secs(5));
    assert_eq!(reader.read::<u64>("listen.backlog"), 3);
    assert_eq!(reader.read::<SocketAddr>("listen.address"), "127.0.0.1:2".parse().unwrap());
    assert!(reader.finish(()).is_ok());
}

#[test]
fn text_from_the_environment_needs_no_quotes_and_lists_take_commas() {
    let sources = ConfigSources::new("rc-example").env(env(&[
        ("RC_REGION", "5"),
        ("RC_MESH__SEEDS", "a.example:1, 10.0.0.1:2,[::1]:3"),
        ("RC_LIMITS__HELD", "64KiB"),
        ("RC_LIMITS__RATIO", "1"),
        ("RC_IDENTITY__KEY", "\"quoted/key\""),
    ]));
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.optional::<String>("region"), Some("5".to_owned()));
    assert_eq!(reader.read::<Vec<String>>("mesh.seeds"), ["a.example:1", "10.0.0.1:2", "[::1]:3"]);
    assert_eq!(reader.read::<u64>("limits.held"), 65_536);
    assert!((reader.read::<f64>("limits.ratio") - 1.0).abs() < 1e-9);
    assert_eq!(reader.optional::<PathBuf>("identity.key"), Some(PathBuf::from("quoted/key")));
    assert!(reader.finish(()).is_ok());
}

#[test]
fn all_problems_of_all_layers_come_at_once_each_with_its_place() {
    let text = "colour = 1\n\n[timers]\nkeepalive = \"5s\"\nkeep_alive = 5\n\n[listen]\nbacklog = 0\n\
                address = \"localhost\"\n[[service]]\nlinger = \"2h\"\nnam = \"x\"\n";
    let (site, sources) = Site::with(text);
    let sources = sources
        .env(env(&[("RC_LIMITS__HELD", "many"), ("RC_LISTEN__ADRESS", "x"), ("RC_OTHER", "not ours")]))
        .set("mesh.enabled=perhaps")
        .set("consent.policy")
        .set("mesh=1");
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    let keep_alive: Duration = reader.read("timers.keep_alive");
    reader.reject("limits.ratio", format_args!("{keep_alive:?} does not go with it"), "use 0.1");
    let all = reader.finish(()).unwrap_err();
    assert_eq!(all.problems().len(), 14);
    let mut found = lines(&site, &settings);
    found.sort();
    let mut expected = [
        "unknown key colour (rc-example.toml:1): remove it; --print-config lists the keys",
        "unknown key timers.keepalive (rc-example.toml:4): did you mean timers.keep_alive?",
        "timers.keep_alive: found integer 5 (rc-example.toml:5): write a duration such as \"5s\" or \"250ms\"",
        "listen.backlog: 0 is out of range (rc-example.toml:8): use 1 to 65535",
        "listen.address: found string \"localhost\" (rc-example.toml:9): write an address with a port such as \
         \"0.0.0.0:443\" or \"[::]:443\"",
        "service[0].linger: \"2h\" is out of range (rc-example.toml:11): use \"0s\" to \"1h\"",
        "unknown key service[0].nam (rc-example.toml:12): did you mean service[].name?",
        "service[0].name: not set (rc-example.toml:10): add name = …, text in quotes",
        "limits.held: found text many (environment RC_LIMITS__HELD): write a size such as 4096 or \"64KiB\"",
        "unknown key RC_LISTEN__ADRESS (environment RC_LISTEN__ADRESS): did you mean RC_LISTEN__ADDRESS?",
        "mesh.enabled: found text perhaps (--set mesh.enabled): write true or false",
        "consent.policy: --set needs a key and a value (--set consent.policy): write --set section.key=value",
        "mesh: found a section (--set mesh): write a key of it, such as mesh.key",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let report = serde_json::to_value(all.problems()[0].report()).unwrap();
    assert_eq!((&report["key"], &report["what"]), (&"colour".into(), &"unknown key colour".into()));
    let failure = Failure::from(all);
    assert_eq!((failure.status().code(), failure.lines().count()), (2, 14));
}

#[test]
fn table_arrays_are_read_in_order_with_their_defaults() {
    let text =
        "[[service]]\nname = \"shell\"\n[[service]]\nname = \"echo\"\nlinger = \"5s\"\nlimits.held = 10\n";
    let (_site, sources) = Site::with(text);
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    let services = reader.each("service", |table| {
        let name: String = table.read("name");
        (name, table.read::<Duration>("linger").as_secs(), table.optional::<u64>("limits.held"))
    });
    assert_eq!(services, [("shell".to_owned(), 30, None), ("echo".to_owned(), 5, Some(10))]);
    assert!(reader.is_set("service") && !reader.is_set("region"));
    assert!(reader.finish(()).is_ok());
}

#[test]
fn a_flag_replaces_a_table_array_as_a_whole() {
    let (_site, sources) =
        Site::with("[[service]]\nname = \"a\"\nlinger = \"5s\"\n[[service]]\nname = \"b\"\n");
    let settings = Settings::load(sources.set("service=[{name = \"c\"}]"), KNOBS);
    let mut reader = settings.reader();
    let services = reader
        .each("service", |table| (table.read::<String>("name"), table.read::<Duration>("linger").as_secs()));
    assert_eq!(services, [("c".to_owned(), 30)], "nothing of the file's first table shows through");
    assert!(reader.finish(()).is_ok());
}

#[test]
fn debug_output_of_the_sources_has_no_values() {
    let sources = ConfigSources::new("rc-example")
        .env(env(&[("RC_IDENTITY__PASSPHRASE", "hunter2")]))
        .set("identity.passphrase=hunter2");
    assert!(!format!("{sources:?}").contains("hunter2"));
}

#[test]
fn an_objection_to_a_table_names_the_line_of_its_value() {
    let (site, sources) = Site::with("[[service]]\nname = \"a\"\n\n[[service]]\nname = \"a\"\n");
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    let mut seen = Vec::new();
    reader.each("service", |table| {
        let name: String = table.read("name");
        if seen.contains(&name) {
            table.reject("name", format_args!("{name} is there twice"), "rename one");
            table.reject("linger", "is a default", "set it");
        }
        seen.push(name);
    });
    let all =
        reader.finish(()).unwrap_err().to_string().replace(&format!("{}/", site.dir.path().display()), "");
    assert_eq!(
        all,
        "service[1].name: a is there twice (rc-example.toml:5): rename one\n\
         service[1].linger: is a default (rc-example.toml:4): set it"
    );
}

#[test]
fn a_section_that_is_no_table_and_a_list_that_is_no_list_are_named() {
    let (site, sources) = Site::with("listen = 5\nservice = \"x\"\n[mesh]\nseeds = [\"a\", 1]\n");
    let found = lines(&site, &Settings::load(sources, KNOBS));
    assert_eq!(
        found,
        [
            "listen: found integer (rc-example.toml:1): write [listen] with keys below it",
            "service: found string (rc-example.toml:2): write [[service]] with keys below it",
            "mesh.seeds: found string \"a\" (rc-example.toml:4): write a host with a port such as \
         \"broker.example.com:443\"",
        ]
    );
}

#[test]
fn broken_toml_is_reported_with_its_line_and_the_rest_is_still_checked() {
    let (site, sources) = Site::with("[listen]\nbacklog = = 3\n[timers]\nkeep_alive = \"90s\"\n");
    let found = lines(&site, &Settings::load(sources, KNOBS));
    assert!(
        found.iter().any(|line| line.starts_with("not valid TOML") && line.contains("rc-example.toml:2")),
        "{found:?}"
    );
    assert!(found.iter().any(|line| line.contains("timers.keep_alive") && line.contains(":4")), "{found:?}");
}

#[test]
fn a_named_file_has_to_exist_and_a_large_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let text = errors(&Settings::load(ConfigSources::new("rc-example").file(&missing), KNOBS)).to_string();
    assert!(
        text.contains("cannot read") && text.contains(missing.to_str().unwrap()) && text.contains("--config")
    );
    let (_site, sources) = Site::with(&"#".repeat((1 << 20) + 1));
    assert!(errors(&Settings::load(sources, KNOBS)).to_string().contains("larger than 1 MiB"));
    let (_site, sources) = Site::with(&"#".repeat(1 << 20));
    assert!(Settings::load(sources, KNOBS).reader().finish(()).is_ok());
}

#[test]
fn a_missing_required_value_says_how_to_set_it() {
    const ONE: &[Knob] = &[Knob::required("identity.name", Kind::Text, "Who.")];
    let settings = Settings::load(ConfigSources::new("rc-example"), ONE);
    let mut reader = settings.reader();
    assert_eq!(reader.read::<String>("identity.name"), "");
    assert_eq!(
        reader.finish(()).unwrap_err().to_string(),
        "identity.name: not set: set identity.name in rc-example.toml, RC_IDENTITY__NAME in the environment, or --set \
         identity.name=…, to text in quotes"
    );
}

#[test]
fn reading_what_the_table_does_not_declare_is_a_problem_and_never_a_panic() {
    let settings = Settings::load(ConfigSources::new("rc-example"), KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.read::<u64>("no.such"), 0);
    assert!(!reader.read::<bool>("timers.keep_alive"));
    assert_eq!(reader.read::<String>("region"), "");
    let all = reader.finish(()).unwrap_err();
    let keys: Vec<&str> = all.problems().iter().map(|problem| problem.key.as_str()).collect();
    assert!(
        keys.contains(&"no.such") && keys.contains(&"timers.keep_alive") && keys.contains(&"region"),
        "{keys:?}"
    );
}

#[test]
fn a_number_too_large_for_its_type_is_the_users_problem() {
    let settings = Settings::load(ConfigSources::new("rc-example").set("limits.held=5GiB"), KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.read::<u32>("limits.held"), 0);
    let text = reader.finish(()).unwrap_err().to_string();
    assert_eq!(text, "limits.held: 5368709120 is too large (--set limits.held): use a smaller number");
}

#[test]
fn an_ipv6_address_is_an_entry_of_a_list_and_not_a_list() {
    let kind = Kind::List(&Kind::SocketAddr);
    let count = |text: &str| Setting::from_text(kind, text).map(|setting| setting.items().len()).ok();
    assert_eq!(count("[::1]:443"), Some(1));
    assert_eq!(count("[::1]:443, 127.0.0.1:443"), Some(2));
    assert_eq!(count("[\"[::1]:443\"]"), Some(1));
    assert_eq!(count("[::1"), None);
}

#[test]
fn texts_are_parsed_into_the_binarys_own_types() {
    let sources = ConfigSources::new("rc-example").set("mesh.seeds=127.0.0.1:1,host:2").set("region=7");
    let settings = Settings::load(sources, KNOBS);
    let mut reader = settings.reader();
    assert_eq!(reader.parsed::<u8>("region", "use a number"), Some(7));
    assert_eq!(
        reader.parsed_list::<SocketAddr>("mesh.seeds", "use addresses"),
        ["127.0.0.1:1".parse().unwrap()]
    );
    let text = reader.finish(()).unwrap_err().to_string();
    assert!(
        text.starts_with("mesh.seeds: \"host:2\": ") && text.ends_with("(--set mesh.seeds): use addresses"),
        "{text}"
    );
}

#[test]
fn relative_paths_of_the_file_start_at_the_file() {
    let (site, sources) = Site::with("[identity]\nkey = \"tls/key\"\n");
    let settings = Settings::load(sources, KNOBS);
    assert_eq!(settings.reader().optional::<PathBuf>("identity.key"), Some(site.dir.path().join("tls/key")));
    assert_eq!(settings.file(), Some(site.path().as_path()));
}

#[test]
fn the_usual_places_are_the_system_then_the_user() {
    let home = usual_places("rc-x", &env(&[("HOME", "/home/u"), ("XDG_CONFIG_HOME", "")]));
    assert_eq!(
        home,
        [PathBuf::from("/etc/rc-mesh/rc-x.toml"), PathBuf::from("/home/u/.config/rc-mesh/rc-x.toml")]
    );
    let xdg = usual_places("rc-x", &env(&[("HOME", "/home/u"), ("XDG_CONFIG_HOME", "/cfg")]));
    assert_eq!(xdg.last(), Some(&PathBuf::from("/cfg/rc-mesh/rc-x.toml")));
    assert_eq!(usual_places("rc-x", &[]).len(), 1);
}

#[test]
fn the_first_usual_place_that_has_a_file_is_read() {
    let (site, _) = Site::with("region = \"in\"\n");
    let mut sources = ConfigSources::new("rc-example");
    sources.search = vec![site.dir.path().join("none.toml"), site.path()];
    let settings = Settings::load(sources, KNOBS);
    assert_eq!(settings.reader().optional::<String>("region"), Some("in".to_owned()));
}

#[test]
fn secrets_are_never_shown() {
    let (_site, sources) = Site::with("[identity]\npassphrase = \"hunter2\"\n");
    let settings = Settings::load(sources, KNOBS);
    assert!(settings.print().contains("passphrase = \"***\"") && !settings.print().contains("hunter2"));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let secret = settings.reader().optional::<Secret>("identity.passphrase").unwrap();
    assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter2", "***"));
    let (_site, wrong) = Site::with("[identity]\npassphrase = 12345\n");
    let text = errors(&Settings::load(wrong, KNOBS)).to_string();
    assert!(text.contains("passphrase") && !text.contains("12345"), "{text}");
}

#[test]
fn the_printed_configuration_reads_back_to_itself_and_names_each_source() {
    let text = "region = \"a\\\"b\"\n[timers]\nkeep_alive = \"1500ms\"\n[[service]]\nname = \"x\"\nlimits.held = 2048\n";
    let (site, sources) = Site::with(text);
    let sources = sources.env(env(&[("RC_MESH__SEEDS", "a:1,b:2")])).set("limits.ratio=0.25");
    let first = Settings::load(sources, KNOBS);
    let printed = first.print();
    let file = site.path().display().to_string();
    for line in [
        format!("keep_alive = \"1s 500ms\"  # {file}:3"),
        "seeds = [\"a:1\", \"b:2\"]  # environment RC_MESH__SEEDS".to_owned(),
        "ratio = 0.25  # --set limits.ratio".to_owned(),
        "backlog = 4096  # default".to_owned(),
        "# key is not set".to_owned(),
        format!("limits.held = \"2KiB\"  # {file}:6"),
    ] {
        assert!(printed.contains(&line), "{line} in\n{printed}");
    }
    let (_site, again) = Site::with(&printed);
    let second = Settings::load(again, KNOBS);
    assert!(second.reader().finish(()).is_ok(), "{printed}");
    let without_sources = |text: &str| {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(without_sources(&second.print()), without_sources(&printed));
}

#[test]
fn the_reference_names_key_default_unit_environment_and_what_breaks() {
    let page = reference("rc-example", KNOBS);
    let keep_alive = page.split("### `keep_alive`").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(
        keep_alive.trim(),
        "How often an idle link is pinged.\n\n- Default: `\"15s\"`\n- Unit: duration\n- Range: `\"1s\"` to `\"1m\"`\n\
         - Environment: `RC_TIMERS__KEEP_ALIVE`\n- Too small: wastes traffic\n- Too large: a dead link is noticed late"
    );
    assert!(page.contains("## `[[service]]`") && page.contains("(`RC_SERVICE`)"));
    for knob in KNOBS {
        assert!(page.contains(knob.doc), "{}", knob.path);
    }
}

#[test]
fn sizes_and_hosts_take_only_their_own_forms() {
    let kind = |kind: Kind, text: &str| Setting::from_text(kind, text).is_ok();
    for size in ["0", "10", "10B", "10 kB", "1GiB", "\"2MiB\""] {
        assert!(kind(Kind::Size, size), "{size}");
    }
    for size in ["", "-1", "1.5KiB", "KiB", "10QB", "99999999999999999999", "18446744073709551615KiB"] {
        assert!(!kind(Kind::Size, size), "{size}");
    }
    for host in ["a:1", "a.example.com:443", "[::1]:443", "127.0.0.1:0"] {
        assert!(kind(Kind::HostPort, host), "{host}");
    }
    for host in ["a", "a:", ":1", "a:65536", "::1:443", "a b:1", "https://a:1", "u@a:1"] {
        assert!(!kind(Kind::HostPort, host), "{host}");
    }
    for text in ["-1", "1.5", "1e3", "true"] {
        assert!(!kind(Kind::Integer, text), "{text}");
    }
    assert!(!kind(Kind::Number, "nan") && !kind(Kind::Number, "inf"));
}

#[test]
fn bounds_of_a_list_hold_for_each_entry() {
    const ONE: &[Knob] = &[Knob::new("ports", Kind::List(&Kind::Integer), "1", "Ports.").range("1", "65535")];
    assert_eq!(Knob::mistakes(ONE), Vec::<String>::new());
    let ok = Settings::load(ConfigSources::new("rc-x").set("ports=1,65535"), ONE);
    assert_eq!(ok.reader().read::<Vec<u16>>("ports"), [1, 65535]);
    let wrong = Settings::load(ConfigSources::new("rc-x").set("ports=[1, 65536]"), ONE);
    assert_eq!(errors(&wrong).to_string(), "ports: 65536 is out of range (--set ports): use 1 to 65535");
}
