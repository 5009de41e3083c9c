//! Settings from the environment: `RATIOND_` and the field's path in upper case, `__` between levels
//! (`RATIOND_COUNTERS__LISTEN`). The only reader of the process's environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::file::Settings;

/// What our variables begin with.
const PREFIX: &str = "RATIOND_";

/// The path of the configuration file, for a process whose command line cannot be changed.
pub(super) const CONFIG_FILE: &str = "RATIOND_CONFIG";

/// Names that are not settings but are nobody's mistake either.
const NOT_SETTINGS: [&str; 7] = [
    CONFIG_FILE,
    "RATIOND_MUTANT",
    "RATIOND_ADDRESS",
    "RATIOND_CLIENT_TLS_CA",
    "RATIOND_CLIENT_TLS_CERTIFICATE",
    "RATIOND_CLIENT_TLS_KEY",
    "RATIOND_FEED_ADDRESS",
];

/// The variables of this process.
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The same, without what is not text.
pub fn readable_environment() -> BTreeMap<String, String> {
    environment().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// How this program was called, for commands that it prints to be pasted.
pub fn program() -> String {
    std::env::args_os().next().map_or_else(|| "rationd".into(), |name| name.to_string_lossy().into_owned())
}

/// The file that this program was started from, to start it again.
pub fn executable() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Where files may be put that nobody keeps.
pub fn scratch() -> PathBuf {
    std::env::temp_dir()
}

/// The variables that are ours, by name; a value that is not UTF-8 is noted.
pub(super) fn ours(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Settings,
) -> Vec<(String, String)> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.into_string() {
            Ok(value) => ours.push((name.to_owned(), value)),
            Err(_) => problems.problem(name, "must be UTF-8"),
        }
    }
    ours
}

/// Puts every variable that is a setting over what the file says.
pub(super) fn apply(variables: Vec<(String, String)>, settings: &mut Settings) {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if !NOT_SETTINGS.contains(&name.as_str()) && !is_service_link(rest) {
            settings.override_with(path_of(rest), &name, value);
        }
    }
}

/// Field names are lower case; a site's code below `cap_by_site` keeps its own case.
fn path_of(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if let [sessions, by_site, code] = path.as_mut_slice()
        && sessions == "sessions"
        && by_site == "cap_by_site"
    {
        *code = rest.rsplit("__").next().unwrap_or_default().to_owned();
    }
    path
}

/// Kubernetes tells every pod where a Service is by variables like `RATIOND_SERVICE_HOST` and
/// `RATIOND_PORT_7420_TCP_ADDR`. A Service called `rationd…` must not keep rationd from starting.
fn is_service_link(rest: &str) -> bool {
    let at_port = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    !rest.contains("__")
        && (rest.ends_with("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || rest == "PORT"
            || rest.ends_with("_PORT")
            || rest.split_once("PORT_").is_some_and(|(_, after)| at_port(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        assert_eq!(path_of("STORE"), ["store"]);
        assert_eq!(path_of("COUNTERS__LISTEN"), ["counters", "listen"]);
        assert_eq!(path_of("SESSIONS__CAP_BY_CHANNEL__POST_OFFICE"), ["sessions", "cap_by_channel", "post_office"]);
        assert_eq!(path_of("SESSIONS__CAP_BY_SITE__Shop1"), ["sessions", "cap_by_site", "Shop1"]);
    }

    #[test]
    fn the_links_of_kubernetes_are_told_from_settings() {
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_GRPC",
            "PORT",
            "PORT_7420_TCP",
            "PORT_7420_TCP_ADDR",
            "REDIS_SERVICE_HOST",
            "REDIS_PORT",
            "REDIS_PORT_6379_TCP_PROTO",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for setting in ["STORE", "STOER", "COUNTERS__LISTEN", "COUNTERS__PORT", "PORTAL", "SUPPORT_DESK"] {
            assert!(!is_service_link(setting), "{setting}");
        }
    }
}
