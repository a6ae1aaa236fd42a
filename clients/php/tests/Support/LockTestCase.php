<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Support;

use PHPUnit\Framework\TestCase;
use SmallResource\Client\Client;
use SmallResource\Client\Renewal\GuardFactory;
use SmallResource\Client\ResourceFactory;
use SmallResource\Client\Retry;

abstract class LockTestCase extends TestCase
{
    protected Server $server;

    protected function setUp(): void
    {
        $this->server = Server::shared();
    }

    protected function client(?string $uri = null, string $key = Server::LOCK, float $timeout = 10.0): Client
    {
        return new Client($uri ?? $this->server->uri(), $key, null, $timeout, new Retry(delay: 0.02, maxDelay: 0.3));
    }

    protected function resources(string $kind = GuardFactory::AUTO, string $key = Server::WRITE, ?string $uri = null): ResourceFactory
    {
        return new ResourceFactory($this->client($uri, $key), new GuardFactory($kind));
    }

    /** The name of a resource that exists, and that no other test uses. */
    protected function existingName(): string
    {
        $this->server->create($name = $this->unknownName());

        return $name;
    }

    /** A name that does not exist. */
    protected function unknownName(): string
    {
        return 'php:'.$this->testName().':'.bin2hex(random_bytes(4));
    }

    private function testName(): string
    {
        // PHPUnit 10 has another word for it.
        return method_exists($this, 'getName') ? $this->getName(false) : $this->name();
    }

    /** Ends a test that cannot be run here, and says so where the server's tests count what was left out. */
    protected function leaveOut(string $why): never
    {
        if ($file = getenv('TEST_SKIPS')) {
            file_put_contents($file, sprintf("SKIPPED: php-client %s: %s\n", $this->testName(), $why), \FILE_APPEND);
        }
        self::markTestSkipped($why);
    }

    /** Runs PHP code in a process of its own, with the client and the variables loaded. */
    protected function script(string $code, array $variables = [], array $environment = []): Script
    {
        return new Script($code, $variables + ['uri' => $this->server->uri(), 'key' => Server::WRITE], $environment);
    }
}
