<?php

declare(strict_types=1);

// With Composer's autoloader where there is one, else with the packages of the distribution in /usr/share/php.
$composer = __DIR__.'/../vendor/autoload.php';
if (is_file($composer)) {
    require_once $composer;
} else {
    // Symfony 5.4 speaks of deprecations that are its own.
    foreach (['Bundle/FrameworkBundle', 'Component/HttpClient', 'Component/Lock', 'Component/Messenger', 'Component/Console', 'Component/Yaml', 'Component/Cache'] as $part) {
        require_once 'Symfony/'.$part.'/autoload.php';
    }
    require_once 'Psr/Log/autoload.php';
    if (stream_resolve_include_path('Composer/InstalledVersions.php')) {
        // Symfony asks from 6.0 on.
        require_once 'Composer/InstalledVersions.php';
    }
    foreach (['Component/Serializer', 'Bundle/WebProfilerBundle'] as $part) {
        if (stream_resolve_include_path('Symfony/'.$part.'/autoload.php')) {
            require_once 'Symfony/'.$part.'/autoload.php';
        }
    }
    require_once __DIR__.'/../src/Bundle/article_name.php';
}

spl_autoload_register(static function (string $class): void {
    foreach (['SmallResource\\Client\\Tests\\' => '/', 'SmallResource\\Client\\' => '/../src/'] as $namespace => $folder) {
        if (str_starts_with($class, $namespace)) {
            $file = __DIR__.$folder.str_replace('\\', '/', substr($class, \strlen($namespace))).'.php';
            if (is_file($file)) {
                require_once $file;
            }

            return;
        }
    }
});
