"""fluentd's configuration, as far as the documentation uses it: a parser, and what each plugin takes.

The tables follow docs.fluentd.org for fluentd 1.19: configuration/config-file, configuration/buffer-section,
output/forward, output/http, input/tail, filter/record_transformer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

COMMON = {"@type", "@id", "@label", "@log_level"}
BUFFERED = {"time_as_integer", "slow_flush_log_threshold"}
PLUGINS: dict[tuple[str, str], set[str]] = {
    ("match", "forward"): BUFFERED
    | {
        *("require_ack_response", "ack_response_timeout", "send_timeout", "connect_timeout", "recover_wait"),
        *("heartbeat_type", "heartbeat_interval", "phi_failure_detector", "phi_threshold", "hard_timeout"),
        *("expire_dns_cache", "dns_round_robin", "ignore_network_errors_at_startup", "compress"),
        *("verify_connection_at_startup", "keepalive", "keepalive_timeout", "transport", "tls_version"),
        *("tls_ciphers", "tls_insecure_mode", "tls_allow_self_signed_cert", "tls_verify_hostname"),
        *("tls_cert_path", "tls_client_cert_path", "tls_client_private_key_path"),
        *("tls_client_private_key_passphrase", "tls_cert_thumbprint", "tls_cert_logical_store_name"),
        "tls_cert_use_enterprise_store",
    },
    ("match", "http"): BUFFERED
    | {
        *("endpoint", "http_method", "proxy", "content_type", "json_array", "compress", "headers"),
        *("headers_from_placeholders", "open_timeout", "read_timeout", "ssl_timeout", "reuse_connections"),
        *("tls_ca_cert_path", "tls_client_cert_path", "tls_private_key_path", "tls_private_key_passphrase"),
        *("tls_verify_mode", "tls_version", "tls_ciphers", "error_response_as_unrecoverable"),
        "retryable_response_codes",
    },
    ("filter", "record_transformer"): {
        *("enable_ruby", "auto_typecast", "renew_record", "renew_time_key", "keep_keys", "remove_keys"),
    },
    ("source", "tail"): {
        *(
            "tag",
            "path",
            "path_timezone",
            "exclude_path",
            "follow_inodes",
            "refresh_interval",
            "limit_recently_modified",
        ),
        *("skip_refresh_on_startup", "read_from_head", "encoding", "from_encoding", "read_lines_limit"),
        *("read_bytes_limit_per_second", "max_line_size", "multiline_flush_interval", "pos_file"),
        *("pos_file_compaction_interval", "path_key", "rotate_wait", "enable_watch_timer"),
        *(
            "enable_stat_watcher",
            "open_on_every_update",
            "emit_unmatched_lines",
            "ignore_repeated_permission_error",
        ),
    },
}
SECTIONS: dict[tuple[str, str], set[str]] = {
    ("forward", "server"): {
        "host",
        "name",
        "port",
        "shared_key",
        "username",
        "password",
        "standby",
        "weight",
    },
    ("forward", "security"): {"self_hostname", "shared_key"},
    ("http", "auth"): {"method", "username", "password"},
    ("tail", "parse"): {
        *(
            "@type",
            "message_key",
            "time_key",
            "time_type",
            "time_format",
            "keep_time_key",
            "timezone",
            "types",
        ),
        "expression",
    },
    ("*", "buffer"): {
        *("@type", "path", "timekey", "timekey_wait", "timekey_use_utc", "timekey_zone", "chunk_limit_size"),
        *("chunk_limit_records", "total_limit_size", "queue_limit_length", "chunk_full_threshold"),
        *("queued_chunks_limit_size", "compress", "flush_at_shutdown", "flush_mode", "flush_interval"),
        *("flush_thread_count", "flush_thread_interval", "flush_thread_burst_interval"),
        *("delayed_commit_timeout", "overflow_action", "retry_timeout", "retry_forever", "retry_max_times"),
        *("retry_secondary_threshold", "retry_type", "retry_wait", "retry_exponential_backoff_base"),
        *("retry_max_interval", "retry_randomize", "disable_chunk_backup"),
    },
}
"""Of a plugin, "*" for all outputs. out_http has no <inject>: it would be ignored in silence."""
ANY_KEYS = {("record_transformer", "record")}


@dataclass
class Section:
    """`<name argument>` with its parameters and the sections in it."""

    name: str
    argument: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    sections: list["Section"] = field(default_factory=list)

    @property
    def type(self) -> str:
        return self.parameters.get("@type", "")

    def all(self, name: str) -> Iterator["Section"]:
        return (section for section in self.sections if section.name == name)


def parse(text: str) -> Section:
    """A root section with what the text has. Raises ValueError."""
    root = Section("")
    opened = [root]
    for number, written in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", written).strip()
        if not line:
            continue
        if match := re.fullmatch(r"</(\w+)>", line):
            if len(opened) == 1 or opened[-1].name != match[1]:
                raise ValueError(f"line {number}: </{match[1]}> closes nothing")
            opened.pop()
        elif match := re.fullmatch(r"<(\w+)(?:\s+([^>]+))?>", line):
            section = Section(match[1], (match[2] or "").strip())
            opened[-1].sections.append(section)
            opened.append(section)
        else:
            name, _, value = line.partition(" ")
            if name in opened[-1].parameters:
                raise ValueError(f"line {number}: {name} is there twice")
            opened[-1].parameters[name] = value.strip()
    if len(opened) > 1:
        raise ValueError(f"<{opened[-1].name}> is not closed")
    return root


def faults(root: Section) -> list[str]:
    """What fluentd would reject, or ignore silently."""
    found = [f"{name} is in no section" for name in root.parameters]
    for section in root.sections:
        if section.name in ("match", "filter", "source"):
            found += _of_plugin(section)
        else:  # a part of a plugin, shown by itself
            owners = [plugin for plugin, name in SECTIONS if name == section.name]
            found += _of_part(section, owners[0]) if owners else [f"<{section.name}> is not known"]
    return found


def _of_plugin(section: Section) -> list[str]:
    known = PLUGINS.get((section.name, section.type))
    if known is None:
        return [f"<{section.name}> of @type {section.type!r} is not in the table"]
    found = [f"{section.type}: {name}" for name in section.parameters.keys() - known - COMMON]
    if (section.name == "source") == bool(section.argument):
        found.append(f"<{section.name} {section.argument}>: its pattern")
    for part in section.sections:
        found += _of_part(part, section.type)
    return found


def _of_part(part: Section, plugin: str) -> list[str]:
    if (plugin, part.name) in ANY_KEYS:
        return []
    known = SECTIONS.get((plugin, part.name), SECTIONS.get(("*", part.name)))
    if known is None:
        return [f"{plugin} has no <{part.name}>"]
    return [f"{plugin} <{part.name}>: {name}" for name in part.parameters.keys() - known]
