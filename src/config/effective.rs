//! The configuration in force, as a file that could be its own source: every field with what it means, secrets left out.

use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::{Config, TlsFiles};

impl Config {
    /// The effective configuration as TOML, every field with a comment, `***` in place of passwords. Read back, it gives
    /// the same configuration (but for what was left out).
    pub fn effective(&self) -> String {
        let mut out = Toml(String::new());
        if let Some(clock) = self.clock {
            out.note(&format!("SIMULATED CLOCK, started at {clock} (--clock): not for real sales"));
        }
        let sessions = &self.sessions;
        out.text(
            "where claims are recorded: embedded:DIRECTORY, redis://…, redis+sentinel://…/NAME or redis+cluster://…, with rediss for TLS",
            "store",
            &self.store,
        );
        out.value(
            "accept a store that may lose confirmed sales; receipts then say so",
            "allow_volatile",
            self.allow_volatile,
        );
        out.text("what this process does: counters, feed or both", "roles", self.roles);
        out.path(
            "directory of programme files (*.toml); left out: the built-in ones",
            "policies",
            self.policies.as_ref(),
        );
        out.path("site registry (CSV); left out: the demo sites", "sites", self.sites.as_ref());
        out.path("key file, mode 0600", "keys", Some(&self.keys));
        out.path(
            "file that keeps how far Redis had got, to notice at the next start that it came back with old data; left out: nothing does",
            "witness",
            self.witness.as_ref(),
        );
        out.seconds(
            "policies, sites and certificates are looked at for changes so often",
            "reload_seconds",
            self.reload,
        );
        out.value("clients may ask which services and messages there are", "reflection", self.reflection);
        out.value("calls worked on at once; more are told to come back", "max_in_flight", self.max_in_flight);
        out.seconds("calls under way may take so long after the signal to stop", "drain_seconds", self.drain);
        out.section("tls");
        let file = |file: fn(&TlsFiles) -> &PathBuf| self.tls.as_ref().map(file);
        out.path("the service's certificate with its chain (PEM)", "certificate", file(|tls| &tls.certificate));
        out.path("its private key (PEM), mode 0600", "key", file(|tls| &tls.key));
        out.path("the authorities of callers' certificates (PEM)", "client_ca", file(|tls| &tls.client_ca));
        out.path(
            "their lists of revoked certificates (PEM, CRL), one of each; left out: none is ever taken back",
            "revoked",
            self.tls.as_ref().and_then(|tls| tls.revoked.as_ref()),
        );
        out.section("counters");
        out.text("where terminals call; off loopback only with TLS", "listen", self.counters);
        out.seconds(
            "a connection so old, give or take a tenth, is asked to connect anew; its calls end first",
            "connection_age_seconds",
            self.connection_age,
        );
        out.value(
            "people that a site may look up in a minute, for each seat, beside those to whom it sells; 0: any number",
            "look_ups_per_minute",
            self.look_ups_per_minute,
        );
        out.value(
            "late sales of uploaded journals that this instance takes in a second",
            "late_sales_per_second",
            self.late_sales_per_second,
        );
        out.section("admin");
        out.text("where operators, metrics and health probes call", "listen", self.admin);
        out.section("feed");
        out.text("where anybody asks for stock; off loopback only with TLS beside it", "listen", self.feed.listen);
        let programme = self.feed.programme;
        out.optional("programme of which the endpoints of 2020 speak; left out: the first", "programme", programme);
        out.value("threads of its own", "workers", self.feed.workers);
        out.section("sessions");
        out.seconds("a seat outlives the last sign of its terminal by so much", "lease_seconds", sessions.lease);
        out.value("live sessions in the nation; more wait in line", "capacity", sessions.capacity);
        out.value("seats of a site, unless named below", "cap_default", sessions.cap_default);
        out.section("sessions.cap_by_channel");
        out.note("seats of each site of a channel");
        for (channel, cap) in &sessions.cap_by_channel {
            out.line(channel, cap);
        }
        out.section("sessions.cap_by_site");
        out.note("seats of one site: stronger than its channel's");
        for (site, cap) in &sessions.cap_by_site {
            out.line(&quoted(site), cap);
        }
        out.section("lanes");
        out.value("connections that carry calls to Redis", "count", self.lanes.count);
        out.value("calls that share a trip, at the most", "group", self.lanes.group);
        out.value("calls that wait for a trip, at the most; more are told to come back", "queue", self.lanes.queue);
        out.section("audit");
        out.value("every access is put on record in an audit log", "enabled", self.audit.is_some());
        out.path(
            "its directory, this instance's alone; left out: `audit` beside an embedded store, none with Redis",
            "directory",
            self.audit.as_ref().map(|audit| &audit.directory),
        );
        let keep_months = self.audit.as_ref().map_or(super::DEFAULT_KEEP_MONTHS, |audit| audit.keep_months);
        out.value("records and their keys are kept for so many whole months", "keep_months", keep_months);
        out.section("telemetry");
        out.text("human or json", "log_format", self.telemetry.log_format.name());
        out.text("which log lines are written, as tracing directives", "log_filter", &self.telemetry.log_filter);
        out.0
    }
}

/// A TOML document under construction.
struct Toml(String);

impl Toml {
    fn line(&mut self, key: &dyn Display, value: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn note(&mut self, note: &str) {
        let _ = writeln!(self.0, "# {note}");
    }

    fn section(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn value(&mut self, note: &str, key: &str, value: impl Display) {
        self.note(note);
        self.line(&key, &value);
    }

    fn text(&mut self, note: &str, key: &str, text: impl Display) {
        self.value(note, key, quoted(&text));
    }

    fn seconds(&mut self, note: &str, key: &str, span: Duration) {
        self.value(note, key, span.as_secs());
    }

    fn path(&mut self, note: &str, key: &str, path: Option<&PathBuf>) {
        self.optional(note, key, path.map(|path| path.display()));
    }

    fn optional(&mut self, note: &str, key: &str, text: Option<impl Display>) {
        match text {
            Some(text) => self.text(note, key, text),
            None => self.note(&format!("{note}\n# {key} = \"…\"")),
        }
    }
}

fn quoted(text: &dyn Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}
