"""Fluent Bit's configuration, as far as the documentation uses it: what each plugin takes.

The tables follow docs.fluentbit.io for Fluent Bit 5.1: administration/networking, transport-security,
buffering, pipeline/inputs/tail, pipeline/inputs/fluentbit-metrics, pipeline/inputs/node-exporter-metrics,
pipeline/outputs/forward, pipeline/outputs/http.
"""

from typing import Any

import yaml

NETWORK = {
    *("net.connect_timeout", "net.connect_timeout_log_error", "net.io_timeout", "net.keepalive"),
    *(
        "net.keepalive_idle_timeout",
        "net.keepalive_max_recycle",
        "net.max_worker_connections",
        "net.dns.mode",
    ),
    *("net.dns.prefer_ipv4", "net.dns.prefer_ipv6", "net.dns.resolver", "net.proxy_env_ignore"),
    *(
        "net.tcp_keepalive",
        "net.tcp_keepalive_time",
        "net.tcp_keepalive_interval",
        "net.tcp_keepalive_probes",
    ),
    "net.source_address",
}
TLS = {
    *("tls", "tls.verify", "tls.verify_hostname", "tls.debug", "tls.ca_file", "tls.ca_path", "tls.crt_file"),
    *("tls.key_file", "tls.key_passwd", "tls.vhost", "tls.min_version", "tls.max_version", "tls.ciphers"),
}
OUTPUT = {
    *("name", "match", "match_regex", "alias", "log_level", "host", "port", "retry_limit", "workers"),
    *("storage.total_limit_size", "tls.windows.certstore_name"),
}
OUTPUTS = {
    "forward": {
        *("time_as_integer", "upstream", "unix_path", "tag", "send_options", "require_ack_response"),
        *("compress", "shared_key", "empty_shared_key", "username", "password", "self_hostname"),
        *("retain_metadata_in_forward_mode", "fluentd_compat", "add_option"),
    },
    "http": {
        *("http_user", "http_passwd", "proxy", "uri", "compress", "format", "allow_duplicated_headers"),
        *("log_response_payload", "header_tag", "header", "json_date_key", "json_date_format", "body_key"),
        *("headers_key", "http_method", "gelf_timestamp_key", "gelf_host_key", "gelf_short_message_key"),
        *("gelf_full_message_key", "gelf_level_key"),
    },
}
INPUT = {
    *(
        "name",
        "tag",
        "alias",
        "log_level",
        "mem_buf_limit",
        "storage.type",
        "storage.pause_on_chunks_overlimit",
    ),
    *("threaded", "interval_sec", "interval_nsec"),
}
INPUTS = {
    "fluentbit_metrics": {"scrape_interval", "scrape_on_start"},
    "node_exporter_metrics": {"scrape_interval", "path.procfs", "path.sysfs", "metrics"},
    "tail": {
        *(
            "path",
            "key",
            "path_key",
            "offset_key",
            "exclude_path",
            "read_from_head",
            "read_newly_discovered_files_from_head",
        ),
        *(
            "refresh_interval",
            "rotate_wait",
            "ignore_older",
            "ignore_active_older_files",
            "buffer_chunk_size",
        ),
        *("buffer_max_size", "static_batch_size", "event_batch_size", "skip_long_lines", "skip_empty_lines"),
        *(
            "truncate_long_lines",
            "exit_on_eof",
            "file_cache_advise",
            "inotify_watcher",
            "parser",
            "tag_regex",
        ),
        *("db", "db.sync", "db.locking", "db.journal_mode", "db.compare_filename", "multiline"),
        *("multiline_flush", "parser_firstline", "multiline.parser", "docker_mode", "docker_mode_flush"),
        *("unicode.encoding", "generic.encoding", "watcher_interval", "progress_check_interval"),
    },
}
SERVICE = {
    *("flush", "grace", "daemon", "dns.mode", "log_file", "log_level", "parsers_file", "plugins_file"),
    *("streams_file", "http_server", "http_listen", "http_port", "hot_reload", "coro_stack_size"),
    *("scheduler.cap", "scheduler.base", "json.convert_nan_to_null", "sp.convert_from_str_to_num"),
    *(
        "storage.path",
        "storage.sync",
        "storage.checksum",
        "storage.max_chunks_up",
        "storage.backlog.mem_limit",
    ),
    *(
        "storage.metrics",
        "storage.delete_irrecoverable_chunks",
        "storage.keep.rejected",
        "storage.rejected.path",
    ),
}


def parse(text: str) -> dict[str, Any]:
    """Its YAML form. Raises ValueError for what has another shape, and for a key that is there twice."""
    _require_each_key_once(yaml.compose(text))
    found = yaml.safe_load(text)
    if not isinstance(found, dict) or found.keys() - {"service", "pipeline"}:
        raise ValueError("has other parts than service and pipeline")
    return found


def _require_each_key_once(node: Any) -> None:
    """PyYAML takes the last of them, without a word."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ValueError(f"a key is there twice: {keys}")
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for each in child if isinstance(child, tuple) else (child,):
            _require_each_key_once(each)


def faults(found: dict[str, Any]) -> list[str]:
    """What Fluent Bit would reject."""
    wrong = [f"service: {name}" for name in found.get("service", {}).keys() - SERVICE]
    pipeline = found.get("pipeline", {})
    wrong += [f"pipeline: {name}" for name in pipeline.keys() - {"inputs", "outputs"}]
    for kind, tables, common in (
        ("inputs", INPUTS, INPUT),
        ("outputs", OUTPUTS, OUTPUT | NETWORK | TLS),
    ):
        for plugin in pipeline.get(kind, []):
            name = plugin.get("name")
            if name not in tables:
                wrong.append(f"{kind}: {name!r} is not in the table")
                continue
            wrong += [f"{name}: {option}" for option in plugin.keys() - tables[name] - common]
            if kind == "outputs" and "match" not in plugin:
                wrong.append(f"{name}: takes nothing without match")
    return wrong
