BEGIN TRANSACTION;
CREATE TABLE catalog_revision (
	id INTEGER NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "catalog_revision" VALUES(1,8);
CREATE TABLE documents (
	type VARCHAR NOT NULL, 
	reference VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	body JSON NOT NULL, 
	revision BIGINT NOT NULL, 
	created_ns BIGINT NOT NULL, 
	modified_ns BIGINT NOT NULL, 
	folded VARCHAR NOT NULL, 
	PRIMARY KEY (type, reference)
);
INSERT INTO "documents" VALUES('policy','voice','published','The voice','{"reference": "voice", "title": "", "tags": ["voice"], "format": "json", "field": "message", "allow": [], "additional_fields": "refuse", "invalid_records": "drop", "limits": {"chunk_bytes": 8388608, "events_per_chunk": 1000000, "decoded_bytes": 268435456, "burst_s": 2.0}, "durability": "fsync", "suppress_repeats": "chunk-id", "reorder_s": 0.0, "encoding": "msgpack", "topic": {}, "partitions": 2, "pipeline": [], "alarm": []}',1,1796112885214683773,1796112885214683773,'voice
the voice');
INSERT INTO "documents" VALUES('policy','wind','draft','Größe','{"reference": "wind", "title": "", "tags": ["wind"], "format": "json", "field": "message", "allow": [], "additional_fields": "refuse", "invalid_records": "drop", "limits": {"chunk_bytes": 8388608, "events_per_chunk": 1000000, "decoded_bytes": 268435456, "burst_s": 2.0}, "durability": "fsync", "suppress_repeats": "chunk-id", "reorder_s": 0.0, "encoding": "msgpack", "topic": {}, "partitions": 2, "pipeline": [], "alarm": []}',8,1796112885220370726,1796112885238622116,'wind
grösse');
INSERT INTO "documents" VALUES('stream','voice','published','voice','{"tag": "voice", "policy": "voice"}',4,1796112885226024568,1796112885226024568,'voice
voice');
INSERT INTO "documents" VALUES('array','voice:spectrum','published','voice:spectrum','{"stream": "voice", "dtype": "<f8", "row_shape": [5]}',5,1796112885228430594,1796112885228430594,'voice:spectrum
voice:spectrum');
INSERT INTO "documents" VALUES('alarm','turbine.1:condition:01234567:41','raised','warning turbine.1 condition','{"stream": "turbine.1", "policy": "vibration", "name": "condition", "output": "condition", "column": "score", "array": "0123456789", "row": 41, "raised_ns": 1000, "changed_ns": 1000, "grade": 1, "worst": 1, "sequence": 0, "value": 7.5, "warning": null, "danger": null, "leading": null, "rul_s": null, "rul_low_s": null, "rul_high_s": null, "values": {}, "contributions": [], "evidence": [], "acknowledged_by": null, "shelved_until_ns": null, "history": [{"number": 0, "at_ns": 1796112885235240391, "by": "windvane", "action": "raised", "text": "", "time_ns": 1000, "grade": 1, "value": 7.5}], "peak": 7.5, "peak_ns": 1000}',7,1796112885235326582,1796112885235326582,'turbine.1:condition:01234567:41
warning turbine.1 condition');
CREATE INDEX documents_by_change ON documents (type, revision);
COMMIT;
