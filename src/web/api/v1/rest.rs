//! Small commands that have one answer each.

use crate::base::json::JsonWriter;
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};

/// There is no link to a vendor's cloud.
pub(super) fn aclk(_: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("aclk-available").bool(false);
    });
    Response::json(json)
}

pub(super) fn dbengine_stats(_: &Call<'_>) -> Response {
    Response::error(404, "dbengine is not enabled")
}

/// The original answers 200 without a body.
pub(super) fn archived_charts(_: &Call<'_>) -> Response {
    Response::new(200, ContentType::Json, "").public()
}
