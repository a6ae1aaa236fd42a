-- What version 2.0.0 creates in an empty database (its schema 2), owned by nobody.
CREATE TABLE IF NOT EXISTS resource_server (
    id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version INT UNSIGNED NOT NULL,
    step VARCHAR(16) NOT NULL,
    profile VARCHAR(16) NULL,
    php_collation VARCHAR(64) NULL,
    floor BIGINT UNSIGNED NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    heartbeat BIGINT UNSIGNED NOT NULL,
    owner BINARY(16) NULL,
    connection BIGINT UNSIGNED NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    timeout INT NOT NULL,
    name_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(name AS BINARY)) STORED,
    UNIQUE KEY name_bytes (name_bytes)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_data (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    id_resource VARCHAR(255) NOT NULL,
    selector VARCHAR(255) NOT NULL,
    locked TINYINT(1) NOT NULL DEFAULT 0,
    data LONGTEXT NULL,
    selector_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(selector AS BINARY)) STORED,
    UNIQUE KEY selector_bytes (id_resource, selector_bytes)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_lock (
    id_resource VARCHAR(255) NOT NULL PRIMARY KEY,
    token BIGINT UNSIGNED NOT NULL,
    ticket BINARY(16) NULL,
    seq BIGINT UNSIGNED NULL,
    owner VARCHAR(255) NULL,
    ttl INT UNSIGNED NULL,
    attempt VARBINARY(255) NULL,
    attempt_ttl INT UNSIGNED NULL,
    acquired_at BIGINT UNSIGNED NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_waiting (
    id_resource VARCHAR(255) NOT NULL,
    ticket BINARY(16) NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    owner VARCHAR(255) NULL,
    ttl INT UNSIGNED NULL,
    attempt VARBINARY(255) NULL,
    attempt_ttl INT UNSIGNED NULL,
    PRIMARY KEY (id_resource, ticket)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_ended_tickets (
    id_resource VARCHAR(255) NOT NULL,
    n BIGINT UNSIGNED NOT NULL,
    entries VARBINARY(2048) NOT NULL,
    PRIMARY KEY (id_resource, n)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_journal (
    n BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    changes LONGBLOB NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_adopted (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    selector VARCHAR(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO resource_server (id, version, step, floor, epoch, heartbeat) VALUES (1, 2, 'ready', 17, 5, 99);
