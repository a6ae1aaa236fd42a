<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use PHPUnit\Framework\Attributes\DataProvider;
use SmallResource\Client\Client;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Exception\ServerUnavailable;
use SmallResource\Client\Renewal\GuardFactory;
use SmallResource\Client\Request;
use SmallResource\Client\ResourceFactory;
use SmallResource\Client\Retry;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Script;
use SmallResource\Client\Tests\Support\Server;
use SmallResource\Client\Tests\Support\Until;
use Symfony\Component\HttpClient\HttpClient;
use Symfony\Component\HttpClient\MockHttpClient;
use Symfony\Component\HttpClient\Response\MockResponse;

/** Answers that get lost, servers that die, processes that fork, clocks that are set. */
final class FailureTest extends LockTestCase
{
    public function testLostAnswersLeaveNothingBehind(): void
    {
        $proxy = $this->proxy();
        $uri = 'http://127.0.0.1:'.$proxy->says('port ');
        $resources = $this->resources(GuardFactory::LOOP, uri: $uri);
        $name = $this->existingName();
        for ($i = 1; $i <= 10; ++$i) {
            $lock = $resources->create($name);
            self::assertTrue($lock->acquire('me', 30, wait: $i % 2 ? 0.0 : 5.0));
            self::assertSame('me', $this->server->owner($name));
            $lock->renew(60);
            $lock->write('round', $i);
            self::assertSame($i, $lock->read('round'));
            self::assertFalse($resources->create($name)->acquire('another', 30, wait: $i % 3 ? 0.0 : 0.2));
            if ($i % 2) {
                self::assertTrue($lock->release());
            } else {
                $lock->write('round', -$i, unlock: true);
            }
            $shown = $this->server->asked('GET', '/resource/'.rawurlencode($name));
            self::assertFalse($shown['locked'], "round $i: held by nobody");
            self::assertSame(0, $shown['waiting'], "round $i: waited for by nobody");
        }
        $proxy->tell('count');
        self::assertGreaterThan(50, (int) $proxy->says('dropped '));
    }

    public function testTheRenewerGoesOnThroughLostAnswers(): void
    {
        $proxy = $this->proxy();
        $uri = 'http://127.0.0.1:'.$proxy->says('port ');
        $lock = $this->resources(GuardFactory::PROCESS, uri: $uri)->create($name = $this->existingName());
        $lock->acquire('me', 3);
        $guard = $lock->autoRenew(every: 0.2, ttl: 3);
        foreach ($guard->each(range(1, 40)) as $item) {
            usleep(100_000);
        }
        self::assertTrue($this->server->isTaken($name));
        $guard->stop();
    }

    public function testAnAnswerToAnotherRequestIsRefused(): void
    {
        $sent = [];
        $http = new MockHttpClient(static function (string $method, string $url, array $options) use (&$sent): MockResponse {
            preg_match('/X-Request-Id: (\S+)/i', implode("\n", $options['headers']), $id);
            $sent[] = $id[1];

            return new MockResponse('{"locked": true, "ticket": "t'.\count($sent).'", "fencingToken": 7, "ttl": 30}', ['response_headers' => ['X-Request-Id' => \count($sent) < 3 ? 'of-somebody-else' : $id[1]]]);
        });
        $client = new Client('http://localhost', 'key', $http, 10, new Retry(delay: 0.0), newHttp: static fn () => $http);
        $lock = (new ResourceFactory($client))->create('x');

        self::assertTrue($lock->acquire('me', 30));
        self::assertCount(3, array_unique($sent), 'each try has an id of its own');
    }

    public function testRefusalsAreNotRetriedAndOverloadIs(): void
    {
        $tries = 0;
        $status = 400;
        $http = new MockHttpClient(static function () use (&$tries, &$status): MockResponse {
            ++$tries;

            return new MockResponse('{"error": "No.", "code": "no"}', ['http_code' => $status, 'response_headers' => ['Retry-After' => '0']]);
        });
        $client = new Client('http://localhost', 'key', $http, 10, new Retry(4, 0.001));
        foreach ([400, 401, 403, 404, 409, 412, 413] as $status) {
            $tries = 0;
            self::assertSame($status, $client->send(new Request('GET', '/'))->status);
            self::assertSame(1, $tries, "status $status");
        }
        foreach ([429, 500, 503] as $status) {
            $tries = 0;
            try {
                $client->send(new Request('GET', '/'));
                self::fail('an answer');
            } catch (ResourceServerException $e) {
                self::assertSame('no', $e->serverCode);
                self::assertSame($status, $e->status);
            }
            self::assertSame(5, $tries, "status $status");
        }
    }

    public function testRetryAfterIsHonoured(): void
    {
        $tries = 0;
        $http = new MockHttpClient(static function () use (&$tries): MockResponse {
            return ++$tries < 2 ? new MockResponse('', ['http_code' => 503, 'response_headers' => ['Retry-After' => '1']]) : new MockResponse('{}');
        });
        $began = microtime(true);
        (new Client('http://localhost', 'key', $http, 10, new Retry(4, 0.001)))->send(new Request('GET', '/'));
        self::assertGreaterThanOrEqual(1.0, microtime(true) - $began);
    }

    public function testAServerThatIsNotThereIsSaidToBeAwayInTime(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $uri = 'http://'.stream_socket_get_name($listener, false);
        foreach (['silent', 'refusing'] as $kind) {
            $began = microtime(true);
            try {
                (new ResourceFactory($this->client($uri, 'secret-key', 0.5)))->create('x')->acquire('me', 30);
                self::fail('acquired from nobody');
            } catch (ServerUnavailable $e) {
                self::assertLessThan(10, microtime(true) - $began, $kind);
                self::assertStringNotContainsString('secret-key', (string) $e);
            }
            fclose($listener);
            if ('silent' === $kind) {
                $listener = fopen('php://memory', 'r');
            }
        }
    }

    public function testAWaitWhereNobodyListensEndsWithTheWait(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $uri = 'http://'.stream_socket_get_name($listener, false);
        fclose($listener);
        [$code, $seconds] = $this->acquireFromNobody(new Client($uri, 'key'), 2.0);
        self::assertSame('unreachable', $code);
        self::assertGreaterThan(1.9, $seconds);
        // Without that end it would try until its timeout of 10 s, and again to leave the queue.
        self::assertLessThan(9.0, $seconds);
    }

    public function testLeavingAServerThatIsSilentTakesTwoSeconds(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $uri = 'http://'.stream_socket_get_name($listener, false);
        [$code, $seconds] = $this->acquireFromNobody($this->client($uri, timeout: 8.0), 0.5);
        // The request may have reached it, so it was asked again which place there is to leave.
        self::assertSame('no_answer', $code);
        self::assertGreaterThan(10.0, $seconds);
        // To leave with its timeout would make it 16.5.
        self::assertLessThan(15.0, $seconds);
    }

    /** The error code and the seconds of an `acquire()` that gets no answer. */
    private function acquireFromNobody(Client $client, float $wait): array
    {
        $began = microtime(true);
        try {
            (new ResourceFactory($client))->create('x')->acquire('me', 10, $wait);
            self::fail('acquired from nobody');
        } catch (ServerUnavailable $e) {
            return [$e->serverCode, microtime(true) - $began];
        }
    }

    public function testNeitherTheClientNorItsRenewerUsesAProxy(): void
    {
        $script = $this->script('
            $client = new SmallResource\Client\Client($uri, $key, null, 2);
            $lock = (new SmallResource\Client\ResourceFactory($client))->create($name);
            echo "acquired ", var_export($lock->acquire("me", 2)), "\n";
            $guard = $lock->autoRenew(every: 0.3, ttl: 2);
            sleep(3);
            echo "held ", var_export($lock->isHeld()), "\n";
        ', ['name' => $this->existingName()], ['http_proxy' => 'http://127.0.0.1:1', 'no_proxy' => '', 'NO_PROXY' => '']);
        self::assertSame('true', $script->says('acquired '));
        self::assertSame('true', $script->says('held '));
    }

    public function testAKilledServerIsWaitedFor(): void
    {
        $server = Server::with([]);
        $server->create($name = 'x');
        $resources = new ResourceFactory($this->client($server->uri()));
        $holder = $resources->create($name);
        $holder->acquire('first', 60);
        $waiter = $this->script('
            $lock = (new SmallResource\Client\ResourceFactory(new SmallResource\Client\Client($uri, $key)))->create("x");
            echo "begins\n";
            echo "acquired ", var_export($lock->acquire("second", 30, wait: 60)), "\n";
            fgets(STDIN);
            echo "released ", var_export($lock->release()), "\n";
        ', ['uri' => $server->uri()]);
        $waiter->says('begins');
        Until::is(fn () => 1 === $server->asked('GET', '/resource/x')['waiting'], 20, 'a waiter');
        $server->kill();
        usleep(300_000);
        $server->start();

        self::assertTrue($holder->isHeld());
        self::assertSame('first', $server->owner($name), 'the holder is still the holder');
        $holder->renew(60);
        self::assertTrue($holder->release());
        self::assertSame('true', $waiter->says('acquired '));
        self::assertSame('second', $server->owner($name));
        $waiter->tell('go on');
        self::assertSame('true', $waiter->says('released '));
        self::assertSame(0, $server->asked('GET', '/resource/x')['waiting']);
    }

    public function testAServerThatTakesShorterWaitsIsAskedMoreOften(): void
    {
        $server = Server::with(['MAX_WAIT_SECONDS' => '1']);
        $server->create($name = 'x');
        $resources = new ResourceFactory($this->client($server->uri()));
        $holder = $resources->create($name);
        $holder->acquire('first', 3);
        $waiter = $resources->create($name);

        self::assertTrue($waiter->acquire('second', 30, wait: 30));
        self::assertGreaterThan(1.5, $waiter->waited());
    }

    public function testAServerThatLetsNobodyWaitIsAskedOnceInASecond(): void
    {
        $server = Server::with(['MAX_WAIT_SECONDS' => '0']);
        $server->create($name = 'x');
        $asked = 0;
        $http = HttpClient::create();
        $counting = new MockHttpClient(static function (string $method, string $url, array $options) use (&$asked, $http): MockResponse {
            ++$asked;
            $response = $http->request($method, $url, ['headers' => $options['headers'], 'body' => $options['body'] ?? '']);

            return new MockResponse($response->getContent(false), ['http_code' => $response->getStatusCode(), 'response_headers' => $response->getHeaders(false)]);
        });
        $resources = new ResourceFactory(new Client($server->uri(), Server::LOCK, $counting));
        $holder = (new ResourceFactory($this->client($server->uri())))->create($name);
        $holder->acquire('first', 30);
        $waiter = $resources->create($name);

        self::assertFalse($waiter->acquire('second', 30, wait: 2.5));
        self::assertLessThan(8, $asked);
        self::assertSame(0, $server->asked('GET', '/resource/x')['waiting']);
        $holder->acquire('first', 2);
        self::assertTrue($waiter->acquire('second', 30, wait: 60));
    }

    public function testAWaitThatIsInterruptedLeavesTheQueue(): void
    {
        $name = $this->existingName();
        $holder = $this->resources()->create($name);
        $holder->acquire('first', 60);
        $waiter = $this->script('
            pcntl_async_signals(true);
            pcntl_signal(SIGTERM, fn () => throw new Exception("told to end"));
            try {
                (new SmallResource\Client\ResourceFactory(new SmallResource\Client\Client($uri, $key)))->create($name)->acquire("second", 30, wait: 60);
            } catch (Exception $e) {
                echo "caught ", $e->getMessage(), "\n";
            }
            fgets(STDIN);
        ', ['name' => $name]);
        $waiting = fn () => $this->server->asked('GET', '/resource/'.rawurlencode($name))['waiting'];
        Until::is(fn () => 1 === $waiting(), 20, 'a waiter');
        $waiter->kill(15);
        self::assertSame('told to end', $waiter->says('caught '));
        self::assertSame(0, $waiting(), 'nobody waits any more, though the process lives');
    }

    public function testProcessesThatForkReadTheirOwnAnswers(): void
    {
        $name = $this->existingName();
        $script = $this->script('
            use SmallResource\Client\{Client, ResourceFactory, ResourceClient};
            $client = new Client($uri, $key);
            $resources = new ResourceFactory($client);
            $resources->create($name)->acquire("warm-up", 1);
            for ($child = 0; $child < 4; ++$child) {
                if (0 === pcntl_fork()) {
                    $held = 0;
                    for ($i = 0; $i < 40; ++$i) {
                        $lock = $resources->create($name);
                        if ($lock->acquire("child $child", 30)) {
                            ++$held;
                            $owner = $client->describe($name)["holder"]["owner"] ?? null;
                            "child $child" === $owner or print("wrong: child $child holds, the server says $owner\n");
                            $lock->release();
                        }
                    }
                    echo "held\n";
                    posix_kill(getmypid(), 9);
                }
            }
            while (pcntl_wait($status) > 0);
            echo "end\n";
        ', ['name' => $name]);
        $printed = $script->ends(120);

        self::assertStringNotContainsString('wrong', $printed);
        self::assertSame(4, substr_count($printed, 'held'), $printed);
    }

    public function testAForkThatEndsTakesNothingFromItsParent(): void
    {
        $name = $this->existingName();
        $store = 's'.$name;
        $this->server->create($store);
        $script = $this->script('
            use SmallResource\Client\{Client, ResourceFactory, Lock\ResourceServerStore};
            use Symfony\Component\Lock\LockFactory;
            $client = new Client($uri, $key);
            $lock = (new ResourceFactory($client))->create($name);
            $lock->acquire("parent", 3);
            $guard = $lock->autoRenew(every: 0.5, ttl: 3);
            $symfony = (new LockFactory(new ResourceServerStore($client)))->createLock($store, 60);
            $symfony->acquire();
            if (0 === pcntl_fork()) {
                // Reads nothing that is for its parent, and destroys copies of all that its parent has.
                for ($i = 0; $i < 4000; ++$i) { $lock->isHeld(); usleep(1000); }
                unset($lock, $guard, $symfony);
                exit(0);
            }
            pcntl_wait($status);
            $guard->check();
            sleep(4);
            $guard->check();
            echo "parent ", var_export($lock->isHeld() && $symfony->isAcquired()), "\n";
            fgets(STDIN);
        ', ['name' => $name, 'store' => $store]);

        self::assertSame('true', $script->says('parent '));
        self::assertSame('parent', $this->server->owner($name));
        self::assertTrue($this->server->isTaken($store));
    }

    public function testAForkMayReleaseWhenItIsToldTo(): void
    {
        $name = $this->existingName();
        $script = $this->script('
            $store = new SmallResource\Client\Lock\ResourceServerStore(new SmallResource\Client\Client($uri, $key));
            $lock = (new Symfony\Component\Lock\LockFactory($store))->createLock($name, 60);
            $lock->acquire();
            if (0 === pcntl_fork()) { $lock->release(); posix_kill(getmypid(), 9); }
            pcntl_wait($status);
            echo "parent ", var_export($lock->isAcquired()), "\n";
        ', ['name' => $name]);
        self::assertSame('false', $script->says('parent '));
        self::assertFalse($this->server->isTaken($name));
    }

    /** @dataProvider steps */
    #[DataProvider('steps')]
    public function testNoStepOfTheWallClockDecidesWhoHoldsTheLock(string $step): void
    {
        if (!$library = $this->faketime()) {
            $this->leaveOut('libfaketime is not installed.');
        }
        $clock = tempnam(sys_get_temp_dir(), 'srs-php-');
        file_put_contents($clock, '+0');
        $name = $this->existingName();
        $this->server->create("s$name");
        $script = $this->script('
            use SmallResource\Client\{Client, ResourceFactory, Lock\ResourceServerStore};
            $client = new Client($uri, $key);
            $lock = (new ResourceFactory($client))->create($name);
            $lock->acquire("me", 8);
            $symfony = (new Symfony\Component\Lock\LockFactory(new ResourceServerStore($client)))->createLock("s$name", 8);
            $symfony->acquire();
            $before = time();
            echo "acquired\n";
            fgets(STDIN);
            $stepped = time() - $before;
            echo "stepped ", abs($stepped) > 3000 ? "far" : $stepped, "\n";
            echo "held ", var_export($lock->isHeld() && $symfony->isAcquired() && $lock->remaining() > 0), "\n";
            $lock->renew(8);
            $symfony->refresh(8);
            echo "renewed ", var_export($lock->isHeld() && $symfony->isAcquired() && $lock->remaining() <= 8), "\n";
            while ($lock->isHeld() || $symfony->isAcquired()) { usleep(10_000); }
            echo "over\n";
            fgets(STDIN);
        ', ['name' => $name], [
            'LD_PRELOAD' => $library, 'FAKETIME_TIMESTAMP_FILE' => $clock, 'FAKETIME_NO_CACHE' => '1', 'FAKETIME_DONT_FAKE_MONOTONIC' => '1', 'DONT_FAKE_MONOTONIC' => '1',
        ]);
        $script->says('acquired');
        file_put_contents($clock, $step);
        $script->tell('go on');
        self::assertSame('far', $script->says('stepped '));
        self::assertSame('true', $script->says('held '));
        self::assertSame('true', $script->says('renewed '));
        $until = Until::is(function () use ($name): bool {
            return !$this->server->isTaken($name) && !$this->server->isTaken("s$name");
        }, 30, 'the leases to end');
        self::assertTrue($until);
        // Known to be over at once, not an hour later.
        $script->says('over', 2);
        unlink($clock);
    }

    public static function steps(): array
    {
        return ['an hour ahead' => ['+3600'], 'an hour back' => ['-3600']];
    }

    private function faketime(): ?string
    {
        return (glob('/usr/lib/*/faketime/libfaketime.so.1') ?: glob('/usr/lib*/faketime/libfaketime.so.1'))[0] ?? null;
    }

    /** A proxy that takes every request to the server, and drops every second answer. */
    private function proxy(): Script
    {
        return $this->script(file_get_contents(__DIR__.'/Support/proxy.php'), ['server' => substr($this->server->uri(), 7)]);
    }
}
