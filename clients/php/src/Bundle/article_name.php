<?php

declare(strict_types=1);

// The bundle goes by the name under which it was announced, unless that is the bundle published before.
spl_autoload_register(static function (string $class): void {
    if ('Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle' === $class) {
        class_alias(SmallResource\Client\Bundle\SmallResourceClientBundle::class, $class);
    }
});
