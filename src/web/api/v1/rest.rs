//! Small commands that have one answer each.

use crate::base::json::JsonWriter;
use crate::web::api::Call;
use crate::web::http::Response;

/// There is no link to a vendor's cloud.
pub(super) fn aclk(_: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("aclk-available").bool(false);
    });
    Response::json(json)
}

/// Numbers of the original's store that ours has nothing like; whoever reads them finds zeros.
const WITHOUT_MEANING: &[&str] = &[
    "sizeof_metric",
    "sizeof_metric_in_index",
    "sizeof_page",
    "sizeof_page_in_index",
    "sizeof_extent",
    "sizeof_page_in_extent",
    "sizeof_datafile",
    "sizeof_page_in_cache",
    "sizeof_page_data",
    "pages_per_extent",
    "extents",
    "extents_pages",
    "points",
    "metrics_pages",
    "extents_compressed_bytes",
    "pages_uncompressed_bytes",
    "pages_duration_secs",
    "single_point_pages",
    "average_compression_savings",
    "average_point_duration_secs",
    "average_metric_retention_secs",
    "ephemeral_metrics_per_day_percent",
    "average_page_size_bytes",
    "estimated_concurrently_collected_metrics",
    "currently_collected_metrics",
    "max_concurrently_collected_metrics",
];

/// What each tier of the store holds.
pub(super) fn dbengine_stats(call: &Call<'_>) -> Response {
    let store = call.agent.engines.as_ref().and_then(|engines| engines.open_store());
    let Some(store) = store else { return Response::error(404, "dbengine is not enabled") };
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut json = JsonWriter::new();
    json.object(|j| {
        for (tier, stats) in store.stats().iter().enumerate() {
            j.key(&format!("tier{tier}")).object(|j| {
                let (first, last) = stats.span.unwrap_or_default();
                j.key("default_granularity_secs").integer(i64::from(stats.grouping));
                j.key("sizeof_point_data").integer(if tier == 0 { 4 } else { 16 });
                j.key("datafiles").count(stats.files);
                j.key("metrics").integer(i64::from(stats.metrics));
                j.key("first_t").integer(first);
                j.key("last_t").integer(last);
                j.key("database_retention_secs").integer(last - first);
                j.key("disk_space").integer(number(stats.bytes));
                j.key("max_disk_space").integer(number(stats.bytes_max));
                for name in WITHOUT_MEANING {
                    j.key(name).integer(0);
                }
            });
        }
    });
    Response::json(json)
}
/// The original answers 200 without a body.
pub(super) fn archived_charts(_: &Call<'_>) -> Response {
    Response::text("").public()
}
