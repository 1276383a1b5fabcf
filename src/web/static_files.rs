//! Files below `[directories] web`, and the first page of our own where that has no `index.html`.
//!
//! Names are checked before any file is touched, so nothing outside the directory can be named; links inside it are followed,
//! but only to places inside it or below `/usr/share` (Debian's dashboard links its fonts there).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::base::time::UnixSeconds;
use crate::wire::http::{HttpDate, escape_html};

use super::http::{Body, Caching, ContentType, Kind, Response};

/// Shown when the web directory has no page of its own.
const FIRST_PAGE: &str = include_str!("first_page.html");
const INDEX: &str = "index.html";
/// Where packages of distributions put what they share.
const SHARED: &str = "/usr/share";

/// What a client has of a file already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    pub tags: Option<&'a str>,
    pub since: Option<&'a str>,
}

/// Answers for `path`, the decoded path without its host part.
pub fn serve(root: &Path, path: &str, known: Known<'_>) -> Response {
    let name = path.trim_start_matches('/');
    let about = |status, message, echo: &str| Response::error_about(status, message, echo).html();
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.-_".contains(&b)) {
        return about(400, "Filename contains invalid characters: ", name);
    }
    if name.contains("..") {
        return about(400, "Relative filenames are not supported: ", name);
    }
    let wanted = if name.is_empty() { root.join(INDEX) } else { root.join(name) };
    match open(root, &wanted) {
        Ok(found) => unless_known(found, known),
        Err(Refused::Forbidden(full)) => {
            about(403, "Access to file is not permitted: ", &full.display().to_string())
        }
        Err(Refused::Missing(full)) => {
            if name.is_empty() || name == INDEX {
                return first_page();
            }
            let full = escape_html(&full.display().to_string());
            Response::error(404, format!("File does not exist, or is not accessible: {full}"))
                .html()
        }
    }
}

enum Refused {
    Missing(PathBuf),
    Forbidden(PathBuf),
}

fn open(root: &Path, wanted: &Path) -> Result<Response, Refused> {
    let refuse = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Refused::Forbidden(path.to_owned()),
        _ => Refused::Missing(path.to_owned()),
    };
    let mut path = wanted.to_owned();
    let mut meta = fs::metadata(&path).map_err(|e| refuse(&path, &e))?;
    if meta.is_dir() {
        path.push(INDEX);
        meta = fs::metadata(&path).map_err(|e| refuse(&path, &e))?;
    }
    let real = path.canonicalize().map_err(|e| refuse(&path, &e))?;
    let inside = root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if !meta.is_file() || !(inside || real.starts_with(SHARED)) {
        return Err(Refused::Forbidden(path));
    }
    // Should it have become a pipe since, opening it must not wait for a writer.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&real);
    let file: File = open.map_err(|e| refuse(&path, &e))?;
    let meta = file.metadata().map_err(|e| refuse(&path, &e))?;
    let mut response = Response::new(200, content_type(&path), Body::File(file, meta.len()));
    response.caching = Caching::Public;
    response.kind = Kind::File;
    let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    response.date = changed.and_then(|at| i64::try_from(at.as_secs()).ok()).map(UnixSeconds);
    if let (Some(changed), Some(date)) = (changed, response.date) {
        let tag = format!("\"{:x}-{:x}\"", changed.as_nanos(), meta.len());
        let date = HttpDate(date).to_string();
        response = response.header("Last-Modified", date).header("ETag", tag);
    }
    Ok(response)
}

/// 304 where the client has the file as it is: by its tag, or where it names none, by its time.
fn unless_known(mut response: Response, known: Known<'_>) -> Response {
    let own = |wanted: &str| response.headers.iter().find(|(name, _)| *name == wanted);
    let known = match (known.tags, known.since) {
        (Some(tags), _) => own("ETag").is_some_and(|(_, tag)| {
            let same = |given: &str| given == "*" || given.trim_start_matches("W/") == tag;
            tags.split(',').any(|given| same(given.trim()))
        }),
        (None, Some(since)) => own("Last-Modified").is_some_and(|(_, date)| date == since),
        (None, None) => false,
    };
    if known {
        response.status = 304;
        response.body = "".into();
        response.date = None;
    }
    response
}

fn first_page() -> Response {
    let mut response = Response::new(200, ContentType::Html, FIRST_PAGE).public();
    response.kind = Kind::File;
    response
}

fn content_type(path: &Path) -> ContentType {
    use ContentType::{Css, Html, JavaScript, Other, Svg, Text, Xml};
    match path.extension().and_then(|e| e.to_str()).unwrap_or("") {
        "html" => Html,
        "js" => JavaScript,
        "css" => Css,
        "xml" => Xml,
        "xsl" => Other("application/xslt+xml"),
        "txt" => Text,
        "svg" => Svg,
        "ttf" => Other("application/x-font-truetype"),
        "otf" => Other("application/x-font-opentype"),
        "woff" => Other("application/font-woff"),
        "woff2" => Other("application/font-woff2"),
        "eot" => Other("application/vnd.ms-fontobject"),
        "png" => Other("image/png"),
        "jpg" | "jpeg" => Other("image/jpeg"),
        "gif" => Other("image/gif"),
        "bmp" => Other("image/bmp"),
        "ico" => Other("image/x-icon"),
        "icns" => Other("image/icns"),
        _ => Other("application/octet-stream"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn web() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        fs::write(dir.path().join("sub/index.html"), "sub page").unwrap();
        fs::write(dir.path().join("a.js"), "var a;").unwrap();
        symlink("a.js", dir.path().join("link.js")).unwrap();
        symlink("/etc/passwd", dir.path().join("stolen")).unwrap();
        dir
    }

    fn get(web: &tempfile::TempDir, path: &str) -> Response {
        serve(web.path(), path, Known::default())
    }

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        let web = web();
        let first = get(&web, "/a.js");
        let header = |name| first.headers.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
        let (tag, date) = (header("ETag"), header("Last-Modified"));
        let ask = |tags, since| {
            let got = serve(web.path(), "/a.js", Known { tags, since });
            (got.status, got.body.len())
        };
        assert_eq!(ask(Some(tag), None), (304, 0));
        let several = format!("\"x\", W/{tag}");
        assert_eq!(ask(Some(&several), None), (304, 0));
        assert_eq!(ask(None, Some(date)), (304, 0));
        assert_eq!(ask(Some("\"x\""), Some(date)), (200, 6));
        assert_eq!(ask(None, Some("Thu, 01 Jan 1970 00:00:00 GMT")), (200, 6));
    }

    #[test]
    fn files_directories_and_links_inside_are_served() {
        let web = web();
        for (path, length) in
            [("/a.js", 6), ("//a.js", 6), ("/link.js", 6), ("/sub", 8), ("/sub/", 8)]
        {
            let got = get(&web, path);
            assert_eq!((got.status, got.body.len()), (200, length), "{path}");
        }
        assert_eq!(get(&web, "/a.js").content_type, ContentType::JavaScript);
    }

    #[test]
    fn what_must_not_be_read_is_not() {
        let web = web();
        for (path, status) in [
            ("/stolen", 403),
            ("/../x", 400),
            ("/a$b", 400),
            ("/none", 404),
            ("/sub/deep", 404),
            ("http://x/", 400),
        ] {
            assert_eq!(get(&web, path).status, status, "{path}");
        }
        let missing = get(&web, "/no/such.html");
        let text = String::from_utf8_lossy(&missing.body.bytes()).into_owned();
        assert!(text.starts_with("File does not exist, or is not accessible: &#x2F;"), "{text}");
    }

    #[test]
    fn without_an_index_our_own_page_is_shown() {
        let web = web();
        assert_eq!(get(&web, "/").body.bytes()[..], *FIRST_PAGE.as_bytes());
        assert_eq!(serve(Path::new("/no/such"), "/index.html", Known::default()).status, 200);
        fs::write(web.path().join("index.html"), "mine").unwrap();
        assert_eq!(get(&web, "/").body.len(), 4);
    }
}
