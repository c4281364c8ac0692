PRAGMA journal_mode=WAL;
CREATE TABLE models (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    filename VARCHAR NOT NULL,
    bytes INTEGER NOT NULL,
    summary JSON NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);
CREATE TABLE jobs (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    seconds DOUBLE NOT NULL,
    seed INTEGER NOT NULL,
    certificates BOOLEAN NOT NULL,
    items INTEGER NOT NULL,
    request VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    reason VARCHAR,
    error JSON,
    attempt INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    owner VARCHAR,
    lease_until DOUBLE,
    done INTEGER NOT NULL,
    total INTEGER NOT NULL,
    phase VARCHAR NOT NULL,
    result VARCHAR,
    created_at DOUBLE NOT NULL,
    changed_at DOUBLE NOT NULL,
    started_at DOUBLE,
    finished_at DOUBLE,
    PRIMARY KEY (sequence),
    UNIQUE (id),
    FOREIGN KEY(model_id) REFERENCES models (id)
);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE TABLE certificates (
    id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(job_id) REFERENCES jobs (id),
    FOREIGN KEY(model_id) REFERENCES models (id)
);
