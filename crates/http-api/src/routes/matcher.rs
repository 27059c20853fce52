use std::borrow::Cow;
use std::sync::OnceLock;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{ROUTES, Route};

/// A route that fits, with the rest of the path that `{id}` took.
#[derive(Debug)]
pub(crate) struct Matched<'p> {
    pub(crate) route: &'static Route,
    /// Percent-decoded; empty for routes without a parameter.
    pub(crate) id: Cow<'p, str>,
}

/// What a method and a path lead to.
#[derive(Debug)]
pub(crate) enum Found<'p> {
    /// A route.
    Route(Matched<'p>),
    /// `OPTIONS` on a known path; the routes that answer there.
    Options(Vec<&'static Route>),
    /// A known path, another method; the routes that answer there.
    OtherMethod(Vec<&'static Route>),
    /// The path is known without its last slash.
    TrailingSlash,
    /// The path parameter is not percent-encoded UTF-8.
    BadPath,
    /// Nothing.
    Unknown,
}

/// Routes of one path, or of one prefix with a parameter behind it.
#[derive(Debug, Default)]
struct Node {
    /// Verb after the parameter (`/start`), longest first; empty: none.
    ends: Vec<(&'static str, Vec<&'static Route>)>,
    parameter: bool,
}

/// Finds routes.
pub(crate) struct Matcher {
    paths: matchit::Router<Node>,
}

/// The matcher over [`ROUTES`].
pub(crate) fn matcher() -> &'static Matcher {
    static MATCHER: OnceLock<Matcher> = OnceLock::new();
    MATCHER.get_or_init(|| Matcher::new(ROUTES))
}

impl Matcher {
    fn new(routes: &'static [Route]) -> Self {
        let mut nodes: Vec<(&'static str, Node)> = Vec::new();
        for route in routes {
            let (prefix, end) = split(route.path);
            let at = nodes
                .iter()
                .position(|(path, node)| *path == prefix && node.parameter == end.is_some());
            let at = at.unwrap_or_else(|| {
                nodes.push((
                    prefix,
                    Node {
                        ends: Vec::new(),
                        parameter: end.is_some(),
                    },
                ));
                nodes.len() - 1
            });
            let node = &mut nodes[at].1;
            let end = end.unwrap_or_default();
            match node.ends.iter_mut().find(|(known, _)| *known == end) {
                Some((_, here)) => here.push(route),
                None => node.ends.push((end, vec![route])),
            }
        }
        let mut paths = matchit::Router::new();
        for (prefix, mut node) in nodes {
            node.ends.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
            let pattern = if node.parameter {
                format!("{prefix}{{*id}}")
            } else {
                prefix.to_owned()
            };
            // A clash would be a fault of the table; the coverage test finds every route by its path.
            if let Err(error) = paths.insert(pattern, node) {
                tracing::error!(%error, prefix, "route table clash");
            }
        }
        Self { paths }
    }

    /// Finds the route of a method and a raw path.
    pub(crate) fn find<'p>(&self, method: &Method, path: &'p str) -> Found<'p> {
        let Ok(hit) = self.paths.at(path) else {
            let shorter = path.strip_suffix('/').filter(|shorter| !shorter.is_empty());
            return match shorter {
                Some(shorter) if self.paths.at(shorter).is_ok() => Found::TrailingSlash,
                _ => Found::Unknown,
            };
        };
        let node = hit.value;
        let Some((id, routes)) = node.pick(hit.params.get("id").unwrap_or_default()) else {
            return Found::Unknown;
        };
        let Ok(id) = percent_decode_str(id).decode_utf8() else {
            return Found::BadPath;
        };
        if *method == Method::OPTIONS {
            return Found::Options(routes.to_vec());
        }
        let with = |wanted: &Method| routes.iter().find(|route| route.method.to_http() == *wanted);
        let instead = (*method == Method::HEAD).then_some(&Method::GET);
        match with(method).or_else(|| with(instead?)) {
            Some(route) => Found::Route(Matched { route, id }),
            None => Found::OtherMethod(routes.to_vec()),
        }
    }
}

impl Node {
    /// Splits a known verb off the end of what the parameter took.
    fn pick<'n, 'p>(&'n self, rest: &'p str) -> Option<(&'p str, &'n [&'static Route])> {
        self.ends.iter().find_map(|(end, routes)| {
            let id = rest.strip_suffix(end)?;
            (!self.parameter || !id.is_empty()).then_some((id, routes.as_slice()))
        })
    }
}

/// `/v1/models/{id}/start` → prefix `/v1/models/` and end `/start`; without a parameter the end is `None`.
fn split(path: &'static str) -> (&'static str, Option<&'static str>) {
    match (path.find('{'), path.find('}')) {
        (Some(open), Some(close)) => (&path[..open], Some(&path[close + 1..])),
        _ => (path, None),
    }
}

/// Value of `Allow` for the routes of a path.
pub(crate) fn allow(routes: &[&'static Route], options: bool) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        match route.method {
            super::Verb::Get => methods.extend(["GET", "HEAD"]),
            super::Verb::Head => methods.push("HEAD"),
            super::Verb::Post => methods.push("POST"),
            super::Verb::Delete => methods.push("DELETE"),
        }
    }
    methods.extend(options.then_some("OPTIONS"));
    methods.join(", ")
}
