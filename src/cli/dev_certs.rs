//! `rationd dev-certs`: an authority and certificates for development, in files, and the commands to use them with.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::greeting::first_sale;
use super::{complain, exit, print};
use crate::certs::{Authority, CertError, Pem, Subject};
use crate::config::program;
use crate::ids::{FeedId, GatewayId, OperatorId, SiteId, TerminalId};
use crate::policy::Policies;
use crate::sites::Sites;
use crate::time::{Clock, SystemClock, Timestamp};
use crate::tls::withdrawn;

/// What the service is called on its own machine.
const OWN_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The gateway of the demo sites.
const DEMO_GATEWAY: &str = "demo-gateway";
/// The file of the authority's list of revoked certificates.
const LIST: &str = "revoked.pem";
/// An operator, where nobody has named one.
const DEMO_OPERATOR: &str = "demo-operator";

const AFTER_HELP: &str = "With no options: an authority, and certificates for the service on this machine, the first demo site, \
the demo sites' gateway and an operator. Into a directory that has an authority already only what the options name is added. \
Nothing is ever overwritten but the list of revoked certificates.

FOR DEVELOPMENT: whoever reads the authority's key can be every site. In production an authority of your own issues \
certificates with the same URI names (rationd://site/CODE, rationd://site/CODE/TERMINAL, rationd://gateway/NAME, \
rationd://operator/NAME, rationd://feed/NAME).";

/// `dev-certs`
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct DevCerts {
    /// Where the files are put; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "./rationd-certs")]
    directory: PathBuf,
    /// A site's code; may be given several times, as all of these
    #[arg(long = "site", value_name = "CODE")]
    sites: Vec<SiteId>,
    /// A terminal of a site, which the certificate then names
    #[arg(long = "terminal", value_name = "CODE/NAME", value_parser = terminal)]
    terminals: Vec<(SiteId, TerminalId)>,
    /// A gateway, as the registry's last column names it
    #[arg(long = "gateway", value_name = "NAME")]
    gateways: Vec<GatewayId>,
    /// An operator
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<OperatorId>,
    /// A feed of stock to the public
    #[arg(long = "feed", value_name = "NAME")]
    feeds: Vec<FeedId>,
    /// A certificate that is taken back: it is put on the authority's list, revoked.pem, which is made anew
    #[arg(long = "revoke", value_name = "FILE")]
    revoked: Vec<PathBuf>,
    /// A name or an address by which the service is called, beside localhost, 127.0.0.1 and ::1
    #[arg(long = "host", value_name = "NAME_OR_IP")]
    hosts: Vec<String>,
}

fn terminal(text: &str) -> Result<(SiteId, TerminalId), String> {
    let (site, name) = text.split_once('/').ok_or("must be CODE/NAME, such as 11000001/window-1")?;
    Ok((site.parse().map_err(|e| format!("{e}"))?, name.parse().map_err(|e| format!("{e}"))?))
}

pub(super) fn run(command: DevCerts) -> u8 {
    match make(command) {
        Ok(made) => {
            print(made);
            exit::YES
        }
        Err(trouble) => {
            complain(trouble);
            exit::CONFIG
        }
    }
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}: {what}: {why}", .file.display())]
    File { file: PathBuf, what: &'static str, why: io::Error },
    #[error("{0} there already, and nothing is overwritten: move it away, or name another --directory")]
    Exists(String),
    #[error("{}: {why}", .directory.display())]
    Certificate { directory: PathBuf, why: CertError },
}

/// What was made.
struct Made {
    directory: PathBuf,
    authority_is_new: bool,
    subjects: Vec<Subject>,
    /// Certificates on the authority's list, where it was made.
    revoked: Option<usize>,
    good_until: Timestamp,
    now: Timestamp,
}

fn make(command: DevCerts) -> Result<Made, Trouble> {
    let now = SystemClock::real().now();
    let directory = command.directory.clone();
    let authority_is_new = !exists(&file(&directory, "ca", "pem"))?;
    let lost = command.revoked.clone();
    let subjects = subjects(command, authority_is_new);
    let stems = authority_is_new.then(|| "ca".to_owned()).into_iter().chain(subjects.iter().map(stem));
    let mut taken = Vec::new();
    for path in stems.flat_map(|stem| ["pem", "key"].map(|kind| file(&directory, &stem, kind))) {
        if exists(&path)? {
            taken.push(path.display().to_string());
        }
    }
    if let [_, others @ ..] = taken.as_slice() {
        let are = if others.is_empty() { "is" } else { "are" };
        return Err(Trouble::Exists(format!("{} {are}", taken.join(", "))));
    }
    let failed = |why| Trouble::Certificate { directory: directory.clone(), why };
    // Everything is made before anything is written.
    let (authority, mut made) = if authority_is_new {
        let (authority, pem) = Authority::new(now).map_err(failed)?;
        (authority, vec![("ca".to_owned(), pem)])
    } else {
        let (certificate, key) = (read(&file(&directory, "ca", "pem"))?, read(&file(&directory, "ca", "key"))?);
        (Authority::from_pem(&certificate, &key, now).map_err(failed)?, Vec::new())
    };
    for subject in &subjects {
        made.push((stem(subject), authority.issue(subject).map_err(failed)?));
    }
    let list = (authority_is_new || !lost.is_empty()).then(|| revoke(&directory, &authority, &lost)).transpose()?;
    let cannot = |what, file: &Path| {
        let file = file.to_owned();
        move |why| Trouble::File { file, what, why }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(cannot("cannot be made", &directory))?;
    for (stem, Pem { certificate, key }) in &made {
        for (kind, mode, text) in [("key", 0o600, key.as_str()), ("pem", 0o644, certificate.as_str())] {
            let path = file(&directory, stem, kind);
            write(&path, mode, text).map_err(cannot("cannot be written", &path))?;
        }
    }
    let revoked = list.map(|(list, revoked)| {
        // In one step, so that a service that reads it meanwhile finds the old list or the new one.
        let (path, new) = (directory.join(LIST), directory.join(format!(".{LIST}.new")));
        let replaced = fs::write(&new, list).and_then(|()| fs::rename(&new, &path));
        replaced.map_err(cannot("cannot be written", &path)).map(|()| revoked)
    });
    let revoked = revoked.transpose()?;
    Ok(Made { directory, authority_is_new, subjects, revoked, good_until: authority.good_until(), now })
}

/// The authority's list with these certificates beside those that it has revoked already, and how many they are.
fn revoke(directory: &Path, authority: &Authority, lost: &[PathBuf]) -> Result<(String, usize), Trouble> {
    let failed = |path: &Path, why| Trouble::Certificate { directory: path.to_owned(), why };
    let path = directory.join(LIST);
    let mut all = Vec::new();
    if exists(&path)? {
        all = withdrawn(read(&path)?.as_bytes()).map_err(|bad| failed(&path, CertError::List(bad)))?;
    }
    for path in lost {
        let one = authority.withdraw(read(path)?.as_bytes()).map_err(|why| failed(path, why))?;
        if all.iter().all(|other| other.serial != one.serial) {
            all.push(one);
        }
    }
    Ok((authority.revoked(&all).map_err(|why| failed(&path, why))?, all.len()))
}

/// For whom certificates are to be made.
fn subjects(command: DevCerts, authority_is_new: bool) -> Vec<Subject> {
    let DevCerts { directory: _, sites, terminals, gateways, operators, feeds, revoked, hosts } = command;
    let mut subjects: Vec<Subject> = sites.into_iter().map(Subject::Site).collect();
    subjects.extend(terminals.into_iter().map(|(site, name)| Subject::Terminal(site, name)));
    subjects.extend(gateways.into_iter().map(Subject::Gateway));
    subjects.extend(operators.into_iter().map(Subject::Operator));
    subjects.extend(feeds.into_iter().map(Subject::Feed));
    let nothing_named = subjects.is_empty() && hosts.is_empty() && revoked.is_empty();
    if nothing_named {
        subjects.extend(Sites::demo().iter().next().map(|site| Subject::Site(site.id)));
        subjects.extend(DEMO_GATEWAY.parse().ok().map(Subject::Gateway));
        subjects.extend(DEMO_OPERATOR.parse().ok().map(Subject::Operator));
    }
    if authority_is_new || nothing_named || !hosts.is_empty() {
        let hosts = OWN_HOSTS.into_iter().map(str::to_owned).chain(hosts).collect();
        subjects.insert(0, Subject::Service(hosts));
    }
    subjects
}

/// The name of its files without their endings. A dot stands in no code and no name, so no two have the same.
fn stem(subject: &Subject) -> String {
    match subject {
        Subject::Service(_) => "server".to_owned(),
        Subject::Site(site) => format!("site-{site}"),
        Subject::Terminal(site, terminal) => format!("site-{site}.{terminal}"),
        Subject::Gateway(name) => format!("gateway-{name}"),
        Subject::Operator(name) => format!("operator-{name}"),
        Subject::Feed(name) => format!("feed-{name}"),
    }
}

fn file(directory: &Path, stem: &str, kind: &str) -> PathBuf {
    directory.join(format!("{stem}.{kind}"))
}

fn exists(path: &Path) -> Result<bool, Trouble> {
    path.try_exists().map_err(|why| Trouble::File { file: path.to_owned(), what: "cannot be looked for", why })
}

fn read(path: &Path) -> Result<String, Trouble> {
    fs::read_to_string(path).map_err(|why| Trouble::File { file: path.to_owned(), what: "cannot be read", why })
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, authority_is_new, subjects, revoked, good_until, now } = self;
        let until: String = good_until.to_string().chars().take(10).collect();
        writeln!(f, "FOR DEVELOPMENT, in {}, good until {until}:", directory.display())?;
        if *authority_is_new {
            writeln!(f, "  ca.pem, ca.key: the authority; whoever reads its key can be every site")?;
        }
        for subject in subjects {
            let stem = stem(subject);
            let who = match subject {
                Subject::Service(hosts) => format!("the service, called {}", hosts.join(", ")),
                caller => caller.name().unwrap_or_default(),
            };
            writeln!(f, "  {stem}.pem, {stem}.key: {who}")?;
        }
        if let Some(revoked) = revoked {
            let so_far = if *revoked == 0 { "none so far".to_owned() } else { format!("{revoked} so far") };
            writeln!(f, "  {LIST}: the authority's list of revoked certificates, {so_far}")?;
        }
        if !authority_is_new && subjects.is_empty() {
            return write!(f, "A service that was started with --tls-revoked goes by it in a few seconds.");
        }
        let path = |stem: &str, kind| file(directory, stem, kind).display().to_string();
        let (ca, program) = (path("ca", "pem"), program());
        write!(f, "To serve with them:")?;
        write!(
            f,
            "\n  {program} serve --tls-certificate {} --tls-key {} --tls-client-ca {ca} --tls-revoked {}",
            path("server", "pem"),
            path("server", "key"),
            directory.join(LIST).display(),
        )?;
        let Some((number, site)) = first_sale(&Policies::built_in(), &Sites::demo(), *now) else { return Ok(()) };
        let seller = subjects.iter().find_map(|subject| match subject {
            Subject::Site(_) => Some((subject, String::new())),
            Subject::Terminal(_, name) => Some((subject, format!(" --terminal {name}"))),
            Subject::Gateway(_) => Some((subject, format!(" --site {site}"))),
            Subject::Service(_) | Subject::Operator(_) | Subject::Feed(_) => None,
        });
        if let Some((seller, who)) = seller {
            let stem = stem(seller);
            write!(
                f,
                "\nTo sell, from another shell:\n  {program} sell --address https://localhost:7420 --tls-ca {ca} \
                 --tls-certificate {} --tls-key {}{who} --number {number} --quantity 2",
                path(&stem, "pem"),
                path(&stem, "key"),
            )?;
        }
        Ok(())
    }
}
