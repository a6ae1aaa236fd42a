-- What the PHP server 1.1.0 creates in an empty database. Every test of adoption starts from exactly this.
CREATE TABLE IF NOT EXISTS `resource` (
    `id` VARCHAR(255) NOT NULL,
    `name` VARCHAR(255) NOT NULL UNIQUE,
    `timeout` INT NOT NULL DEFAULT 0,
    PRIMARY KEY (`id`),
    INDEX `idx_resource_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE IF NOT EXISTS `resource_data` (
    `id` VARCHAR(255) NOT NULL,
    `id_resource` VARCHAR(255) NOT NULL,
    `selector` VARCHAR(255) NOT NULL,
    `locked` TINYINT(1) NOT NULL DEFAULT 0,
    `data` LONGTEXT NOT NULL,
    PRIMARY KEY (`id`),
    UNIQUE INDEX `ux_resource_data_name_selector` (`id_resource`, `selector`),
    CONSTRAINT `fk_resource_data_resource` FOREIGN KEY (`id_resource`) REFERENCES `resource` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
