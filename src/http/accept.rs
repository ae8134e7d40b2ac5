// Pure: no runtime, no clock, no socket, no random numbers.

//! Which of the two forms of a status a client prefers.

/// Whether a client with these `Accept` headers prefers a page to JSON. It has to name `text/html`: a command such as curl
/// accepts everything, and gets JSON.
pub(super) fn prefers_html<'a>(headers: impl Iterator<Item = &'a str>) -> bool {
    let (mut html, mut json) = (0.0_f32, 0.0_f32);
    for range in headers.flat_map(|header| header.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality: f32 = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        match &*kind {
            "text/html" | "application/xhtml+xml" => html = quality.max(html),
            "application/json" => json = quality.max(json),
            _ => {}
        }
    }
    html > 0.0 && html >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_a_page_and_a_program_gets_json() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for page in [browser, "text/html", "TEXT/HTML;q=0.2", "application/json;q=0.1, text/html; q=0.5"] {
            assert!(prefers_html([page].into_iter()), "{page}");
        }
        for json in
            ["*/*", "application/json", "", "text/html;q=0", "application/json, text/html;q=0.9", ";;,q="]
        {
            assert!(!prefers_html([json].into_iter()), "{json}");
        }
        assert!(!prefers_html([].into_iter()));
        assert!(prefers_html(["application/json;q=0.3", "text/html"].into_iter()), "two headers");
    }
}
