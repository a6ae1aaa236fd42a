<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;
use Symfony\Component\Filesystem\Filesystem;

/** The package as Composer installs it: from this folder, and what it requires from the distribution's packages. */
final class ComposerTest extends LockTestCase
{
    public function testItIsInstalledAndUsedWithoutTheNetwork(): void
    {
        $composer = trim((string) shell_exec('command -v composer'));
        if ('' === $composer) {
            $this->leaveOut('Composer is not installed.');
        }
        $files = new Filesystem();
        $files->mkdir($folder = sys_get_temp_dir().'/srs-php-composer-'.bin2hex(random_bytes(4)));
        try {
            file_put_contents($folder.'/composer.json', json_encode($this->project(), \JSON_THROW_ON_ERROR));
            $this->runs([$composer, 'validate', '--strict', '--no-check-lock', '--no-check-version', \dirname(__DIR__).'/composer.json'], $folder);
            $this->runs([$composer, 'install', '--no-interaction', '--no-progress', '--no-plugins'], $folder);
            $name = $this->existingName();
            file_put_contents($folder.'/use.php', sprintf('<?php
                require "vendor/autoload.php";
                $lock = (new SmallResource\Client\ResourceFactory(new SmallResource\Client\Client(%s, %s)))->create(%s);
                $lock->acquire("me", 30) or exit(1);
                $lock->autoRenew(10, 30)->check();
                $lock->release() or exit(2);
                class_exists("Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle") or exit(3);
                is_a("Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle", SmallResource\Client\Bundle\SmallResourceClientBundle::class, true) or exit(4);
            ', var_export($this->server->uri(), true), var_export(Server::LOCK, true), var_export($name, true)));
            $this->runs([\PHP_BINARY, 'use.php'], $folder);
            self::assertFileExists($folder.'/vendor/small-resource/client/bin/renew.php');
        } finally {
            $files->remove($folder);
        }
    }

    private function project(): array
    {
        $symfony = '/usr/share/php/Symfony';
        $package = static fn (string $name, string $folder, string $namespace, string $version) => ['type' => 'package', 'package' => [
            'name' => $name, 'version' => $version, 'dist' => ['type' => 'path', 'url' => $folder], 'autoload' => ['psr-4' => [$namespace => '']],
        ]];

        return [
            'require' => ['small-resource/client' => '*@dev', 'symfony/http-client' => '*', 'symfony/http-kernel' => '*', 'symfony/dependency-injection' => '*', 'symfony/config' => '*'],
            'repositories' => [
                ['type' => 'path', 'url' => \dirname(__DIR__), 'options' => ['symlink' => false]],
                $package('psr/log', '/usr/share/php/Psr/Log', 'Psr\\Log\\', '1.1.4'),
                $package('psr/container', '/usr/share/php/Psr/Container', 'Psr\\Container\\', '1.1.2'),
                $package('symfony/http-client-contracts', "$symfony/Contracts/HttpClient", 'Symfony\\Contracts\\HttpClient\\', '2.5.5'),
                $package('symfony/service-contracts', "$symfony/Contracts/Service", 'Symfony\\Contracts\\Service\\', '2.5.5'),
                $package('symfony/http-client', "$symfony/Component/HttpClient", 'Symfony\\Component\\HttpClient\\', '5.4.53'),
                $package('symfony/http-kernel', "$symfony/Component/HttpKernel", 'Symfony\\Component\\HttpKernel\\', '5.4.53'),
                $package('symfony/dependency-injection', "$symfony/Component/DependencyInjection", 'Symfony\\Component\\DependencyInjection\\', '5.4.53'),
                $package('symfony/config', "$symfony/Component/Config", 'Symfony\\Component\\Config\\', '5.4.53'),
                ['packagist.org' => false],
            ],
            'autoload' => ['psr-4' => ['Psr\\Container\\' => '/usr/share/php/Psr/Container', 'Symfony\\Contracts\\Service\\' => "$symfony/Contracts/Service"]],
        ];
    }

    private function runs(array $command, string $folder): void
    {
        $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]], $pipes, $folder, [
            'COMPOSER_HOME' => "$folder/home", 'COMPOSER_ALLOW_SUPERUSER' => '1', 'COMPOSER_DISABLE_NETWORK' => '1', 'COMPOSER_MIRROR_PATH_REPOS' => '1',
        ] + getenv());
        $printed = stream_get_contents($pipes[1]);
        self::assertSame(0, proc_close($process), implode(' ', $command).":\n".$printed);
    }
}
