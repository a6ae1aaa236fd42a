<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use SmallResource\Client\Client;
use SmallResource\Client\Exception\ServerUnavailable;
use SmallResource\Client\ResourceFactory;
use SmallResource\Client\Retry;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;

/** A server that speaks TLS, with a certificate of its own. */
final class TlsTest extends LockTestCase
{
    private const CERTIFICATES = __DIR__.'/../../../tests/data/tls/';

    public function testALockIsHadAndRenewedOverTls(): void
    {
        $certificate = realpath(self::CERTIFICATES.'cert.pem');
        $server = Server::with(['TLS_CERT_FILE' => $certificate, 'TLS_KEY_FILE' => realpath(self::CERTIFICATES.'key.pem')]);
        $stranger = (new ResourceFactory(new Client($server->uri(), Server::LOCK, null, 1, new Retry(1, 0.01))))->create('x');
        try {
            $stranger->acquire('me', 30);
            self::fail('a server is believed that nobody vouches for');
        } catch (ServerUnavailable $e) {
            self::assertStringContainsString('certificate', $e->getMessage());
        }

        mkdir($folder = sys_get_temp_dir().'/srs-php-ini-'.bin2hex(random_bytes(4)));
        file_put_contents("$folder/trust.ini", "curl.cainfo=$certificate\nopenssl.cafile=$certificate\n");
        try {
            $holder = $this->script('
                $client = new SmallResource\Client\Client($uri, $key);
                $lock = (new SmallResource\Client\ResourceFactory($client))->create("x");
                $lock->acquire("me", 2) or exit(1);
                $token = $lock->fencingToken();
                $guard = $lock->autoRenew(every: 0.4, ttl: 2);
                sleep(4);
                $guard->check();
                // The server says the same.
                $holder = $client->describe("x")["holder"];
                echo "holds ", var_export($holder["fencingToken"] === $token, true), "\n";
                echo "released ", var_export($lock->release(), true), "\n";
            ', ['uri' => $server->uri()], ['PHP_INI_SCAN_DIR' => ':'.$folder]);
            self::assertSame('true', $holder->says('holds '));
            self::assertSame('true', $holder->says('released '));
        } finally {
            unlink("$folder/trust.ini");
            rmdir($folder);
        }
    }
}
