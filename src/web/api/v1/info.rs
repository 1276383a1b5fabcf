//! `/api/v1/info`: what the agent is and which hosts it knows.

use crate::base::json::JsonWriter;
use crate::web::api::Call;
use crate::web::http::Response;

pub fn info(call: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("uid").string(&call.host.guid().to_string());
    });
    Response::json(json)
}
