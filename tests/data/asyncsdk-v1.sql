-- A database of schema version 1, with rows in it. Never changed: it is what old folders look like.
PRAGMA application_id = 1634957678;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE blobs (
	id TEXT NOT NULL,
	size_bytes BIGINT NOT NULL,
	crc32c TEXT NOT NULL,
	etag TEXT NOT NULL,
	sha256 TEXT,
	references_count INTEGER NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "blobs" VALUES('6b00cc1b27736f6b67a354e8',3,'2a94b2e9','"2a94b2e9-6b00cc1b27736f6b67a354e8"',NULL,1,1795214363155);
INSERT INTO "blobs" VALUES('6b00cc1b279c382f10e1931d',3,'52d8b3a3','"52d8b3a3-6b00cc1b279c382f10e1931d"',NULL,1,1795214363155);
INSERT INTO "blobs" VALUES('6b00cc1b27b7067be5f07b09',5,'1c4451bc','"1c4451bc-6b00cc1b27b7067be5f07b09"',NULL,1,1795214363155);
INSERT INTO "blobs" VALUES('6b00cc1b2beb5d03e935863e',2,'f6dda0a2','"f6dda0a2-6b00cc1b2beb5d03e935863e"',NULL,1,1795214363171);
INSERT INTO "blobs" VALUES('6b00cc1b2d6954e84cc03d83',2,'e58d5356','"e58d5356-6b00cc1b2d6954e84cc03d83"',NULL,1,1795214363177);
INSERT INTO "blobs" VALUES('6b00cc1b2e572c9bc6167f38',2,'17e6d055','"17e6d055-6b00cc1b2e572c9bc6167f38"',NULL,1,1795214363181);
CREATE TABLE checkpoints (
	id TEXT NOT NULL,
	model_id TEXT NOT NULL,
	blob_id TEXT NOT NULL,
	filename TEXT DEFAULT '' NOT NULL,
	epoch INTEGER,
	is_best BOOLEAN DEFAULT '0' NOT NULL,
	is_final BOOLEAN DEFAULT '0' NOT NULL,
	metrics TEXT DEFAULT '{}' NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (model_id, epoch),
	FOREIGN KEY(model_id) REFERENCES models (id),
	FOREIGN KEY(blob_id) REFERENCES blobs (id)
);
INSERT INTO "checkpoints" VALUES('6b00cc1b2bfd116fa60f7654','6b00cc1b2b6a2d3cb0685c12','6b00cc1b2beb5d03e935863e','',0,0,0,'{}',1795214363171,1795214363171,'6b00cc1b25ad258e3e1da892','{}','{}');
INSERT INTO "checkpoints" VALUES('6b00cc1b2d76397a36b5301b','6b00cc1b2b6a2d3cb0685c12','6b00cc1b2d6954e84cc03d83','',1,1,0,'{}',1795214363171,1795214363177,'6b00cc1b25ad258e3e1da892','{}','{}');
INSERT INTO "checkpoints" VALUES('6b00cc1b2e6347e08a448274','6b00cc1b2b6a2d3cb0685c12','6b00cc1b2e572c9bc6167f38','',2,0,0,'{}',1795214363171,1795214363181,'6b00cc1b25ad258e3e1da892','{}','{}');
CREATE TABLE datasets (
	id TEXT NOT NULL,
	project_id TEXT NOT NULL,
	name TEXT NOT NULL,
	kind TEXT NOT NULL,
	description TEXT DEFAULT '' NOT NULL,
	is_readonly BOOLEAN DEFAULT '0' NOT NULL,
	next_position BIGINT DEFAULT '0' NOT NULL,
	item_count BIGINT DEFAULT '0' NOT NULL,
	size_bytes BIGINT DEFAULT '0' NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (project_id, name),
	FOREIGN KEY(project_id) REFERENCES projects (id)
);
INSERT INTO "datasets" VALUES('6b00cc1b27097bcd0c010353','6b00cc1b265a4c7495ce26d2','photos','images','',0,3,3,11,1795214363151,1795214363151,'6b00cc1b25ad258e3e1da892','{}','{}');
CREATE TABLE items (
	id TEXT NOT NULL,
	dataset_id TEXT NOT NULL,
	position BIGINT NOT NULL,
	path TEXT NOT NULL,
	blob_id TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (dataset_id, path),
	UNIQUE (dataset_id, position),
	FOREIGN KEY(dataset_id) REFERENCES datasets (id),
	FOREIGN KEY(blob_id) REFERENCES blobs (id)
);
INSERT INTO "items" VALUES('6b00cc1b278a5a3acb47c84a','6b00cc1b27097bcd0c010353',0,'a.jpg','6b00cc1b27736f6b67a354e8',1795214363155,1795214363155,'6b00cc1b25ad258e3e1da892','{"n":0}','{}');
INSERT INTO "items" VALUES('6b00cc1b27a8579d53305fa0','6b00cc1b27097bcd0c010353',1,'deep/café.jpg','6b00cc1b279c382f10e1931d',1795214363155,1795214363155,'6b00cc1b25ad258e3e1da892','{"n":1}','{}');
INSERT INTO "items" VALUES('6b00cc1b27c1280753610629','6b00cc1b27097bcd0c010353',2,'deep/café.jpg','6b00cc1b27b7067be5f07b09',1795214363155,1795214363155,'6b00cc1b25ad258e3e1da892','{"n":2}','{}');
CREATE TABLE jobs (
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	status TEXT NOT NULL,
	payload TEXT DEFAULT '{}' NOT NULL,
	result TEXT,
	priority INTEGER DEFAULT '0' NOT NULL,
	labels TEXT DEFAULT '[]' NOT NULL,
	lease_owner TEXT,
	lease_expires_at BIGINT,
	attempts INTEGER DEFAULT '0' NOT NULL,
	max_attempts INTEGER DEFAULT '3' NOT NULL,
	stage TEXT DEFAULT '' NOT NULL,
	progress FLOAT,
	message TEXT DEFAULT '' NOT NULL,
	error TEXT,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE meta (
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('owner_id','6b00cc1b25ad258e3e1da892');
CREATE TABLE models (
	id TEXT NOT NULL,
	project_id TEXT NOT NULL,
	name TEXT NOT NULL,
	description TEXT DEFAULT '' NOT NULL,
	framework TEXT DEFAULT '' NOT NULL,
	labels TEXT DEFAULT '{}' NOT NULL,
	config TEXT DEFAULT '{}' NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(project_id) REFERENCES projects (id)
);
INSERT INTO "models" VALUES('6b00cc1b2b6a2d3cb0685c12','6b00cc1b265a4c7495ce26d2','detector','','','{"car":0}','{}',1795214363169,1795214363169,'6b00cc1b25ad258e3e1da892','{}','{}');
CREATE TABLE outbox (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	kind TEXT NOT NULL,
	entity_id TEXT NOT NULL,
	payload TEXT DEFAULT '{}' NOT NULL,
	created_at BIGINT NOT NULL,
	delivered_at BIGINT
);
CREATE TABLE prediction_tasks (
	id TEXT NOT NULL,
	dataset_id TEXT NOT NULL,
	name TEXT NOT NULL,
	kind TEXT NOT NULL,
	categories TEXT NOT NULL,
	version INTEGER DEFAULT '1' NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (dataset_id, name),
	FOREIGN KEY(dataset_id) REFERENCES datasets (id)
);
INSERT INTO "prediction_tasks" VALUES('6b00cc1b2a763df47e4ff9f1','6b00cc1b27097bcd0c010353','detect','classification','["car","person"]',1,1795214363164,1795214363164,'6b00cc1b25ad258e3e1da892','{}','{}');
CREATE TABLE predictions (
	task_id TEXT NOT NULL,
	position BIGINT NOT NULL,
	item_id TEXT NOT NULL,
	predictions TEXT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	PRIMARY KEY (task_id, position),
	FOREIGN KEY(task_id) REFERENCES prediction_tasks (id),
	FOREIGN KEY(item_id) REFERENCES items (id)
);
INSERT INTO "predictions" VALUES('6b00cc1b2a763df47e4ff9f1',0,'6b00cc1b278a5a3acb47c84a','[{"category":"car","score":0.5}]',1795214363167,'6b00cc1b25ad258e3e1da892');
CREATE TABLE projects (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	description TEXT DEFAULT '' NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (name)
);
INSERT INTO "projects" VALUES('6b00cc1b265a4c7495ce26d2','streets','of a town',1795214363149,1795214363149,'6b00cc1b25ad258e3e1da892','{"city":"Graz"}','{}');
CREATE TABLE tokens (
	id TEXT NOT NULL,
	user_id TEXT NOT NULL,
	name TEXT NOT NULL,
	sha256 TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(user_id) REFERENCES users (id),
	UNIQUE (sha256)
);
CREATE TABLE users (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	role TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	created_by TEXT,
	metadata TEXT DEFAULT '{}' NOT NULL,
	extra TEXT DEFAULT '{}' NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (name)
);
INSERT INTO "users" VALUES('6b00cc1b25ad258e3e1da892','owner','owner',1795214363146,1795214363146,NULL,'{}','{}');
CREATE INDEX blobs_by_sha256 ON blobs (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX blobs_unreferenced ON blobs (id) WHERE references_count = 0;
CREATE INDEX jobs_by_status ON jobs (status, priority, created_at);
CREATE INDEX models_by_name ON models (project_id, name);
CREATE INDEX ix_tokens_user_id ON tokens (user_id);
DELETE FROM "sqlite_sequence";
COMMIT;
