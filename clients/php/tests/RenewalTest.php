<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use PHPUnit\Framework\Attributes\DataProvider;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Renewal\GuardFactory;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;
use SmallResource\Client\Tests\Support\Until;

final class RenewalTest extends LockTestCase
{
    /** Begins a script: `$lock` is held for three seconds at a time, and renewed by `$guard`. */
    private const HELD = '
        use SmallResource\Client\{Client, ResourceFactory};
        $resources = new ResourceFactory(new Client($uri, $key));
        $lock = $resources->create($name);
        $lock->acquire("parent", 3) or exit(9);
        $guard = $lock->autoRenew(every: 0.6, ttl: 3);
        echo "held\n";
    ';

    /** @dataProvider waysToBlock */
    #[DataProvider('waysToBlock')]
    public function testTheLockIsHeldThroughEveryBlockingCall(string $call): void
    {
        $name = $this->existingName();
        $blocked = $this->script(self::HELD.'
            $from = hrtime(true);
            '.$call.'
            printf("took %f\n", (hrtime(true) - $from) / 1e9);
            echo "then ", var_export($lock->isHeld()), "\n";
            fgets(STDIN);
            $guard->check();
            $guard->stop();
            echo "released ", var_export($lock->release()), "\n";
        ', ['name' => $name, 'port' => $this->silentPort(), 'fifo' => $this->fifo()]);
        $blocked->says('held');
        while (true) {
            // Held by the same lease, as seen from outside, for as long as the call lasts.
            self::assertTrue($this->server->isTaken($name));
            try {
                $took = $blocked->says('took ', 0.2);
                break;
            } catch (\RuntimeException $e) {
                self::assertStringStartsWith('Waited', $e->getMessage());
            }
        }
        self::assertGreaterThan(3.9, (float) $took, 'the call blocks for longer than the lease lasts, and is not cut short');
        self::assertSame('true', $blocked->says('then '));
        $blocked->tell('go on');
        self::assertSame('true', $blocked->says('released '));
        self::assertFalse($this->server->isTaken($name));
    }

    public static function waysToBlock(): array
    {
        return [
            'sleep' => ['sleep(4);'],
            'usleep' => ['usleep(4_000_000);'],
            'a computation' => ['$end = hrtime(true) + 4e9; while (hrtime(true) < $end) { hash("sha256", "x"); }'],
            'one long call of a C function' => ['hash_pbkdf2("sha512", "x", "y", (int) (7 * 300000 / (function () { $t = hrtime(true); hash_pbkdf2("sha512", "x", "y", 300000); return (hrtime(true) - $t) / 1e9; })()));'],
            'a query of a database' => ['$db = new SQLite3(":memory:"); $db->createFunction("wait", function () { usleep(100_000); return 1; }); $db->querySingle("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + wait() FROM n WHERE i < 41) SELECT count(*) FROM n");'],
            'shell_exec' => ['shell_exec("sleep 4");'],
            'a child that is waited for' => ['$pid = pcntl_fork(); if (!$pid) { sleep(4); posix_kill(getmypid(), 9); } pcntl_waitpid($pid, $status);'],
            'curl' => ['$curl = curl_init("http://127.0.0.1:$port/"); curl_setopt($curl, CURLOPT_TIMEOUT, 4); @curl_exec($curl);'],
            'a stream over HTTP' => ['@file_get_contents("http://127.0.0.1:$port/", false, stream_context_create(["http" => ["timeout" => 4]]));'],
            'stream_select' => ['$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0); $read = [$pair[0]]; $none = null; stream_select($read, $none, $none, 4);'],
            'flock' => ['shell_exec("exec 8>\"$fifo.lock\"; flock 8; sleep 4 <&8 >/dev/null 2>&1 &"); flock(fopen("$fifo.lock", "c"), LOCK_EX);'],
        ];
    }

    /** @dataProvider waysToDie */
    #[DataProvider('waysToDie')]
    public function testTheLockIsFreeWithinItsTtlAfterEveryDeathOfItsHolder(string $death, ?int $signal = null): void
    {
        $name = $this->existingName();
        $parent = $this->script(self::HELD.' fgets(STDIN); '.$death, ['name' => $name]);
        $parent->says('held');
        usleep(1_000_000);
        self::assertTrue($this->server->isTaken($name));
        $parent->tell('die');
        if (null !== $signal) {
            $parent->kill($signal);
        }
        $died = microtime(true);
        // A parent that was not waited for stays as a zombie: nobody waits for it before the end of this test.
        Until::is(fn () => !$this->server->isTaken($name), 20, 'the lock to be free');
        // The last renewal may have left just before the death.
        self::assertLessThan(3 + 4, microtime(true) - $died);
        Until::is(fn () => !self::renewers($parent->pid()), 20, 'the renewer to end');
    }

    public static function waysToDie(): array
    {
        return [
            'the end of the script' => ['$guard = $lock = null; posix_kill(getmypid(), 9);'],
            'exit' => ['register_shutdown_function(fn () => posix_kill(getmypid(), 9)); exit(1);'],
            'an exception that nobody catches' => ['throw new Exception("gone");'],
            'out of memory' => ['str_repeat("x", 1 << 30);'],
            'killed, and a zombie' => ['sleep(60);', 9],
            'told to end' => ['sleep(60);', 15],
        ];
    }

    public function testAForkThatOutlivesTheHolderDoesNotKeepTheLock(): void
    {
        $name = $this->existingName();
        $parent = $this->script(self::HELD.'
            if (0 === pcntl_fork()) { fclose(STDOUT); sleep(30); posix_kill(getmypid(), 9); }
            echo "forked\n"; sleep(60);
        ', ['name' => $name]);
        $parent->says('forked');
        $parent->kill();

        self::assertTrue(Until::is(fn () => !$this->server->isTaken($name), 20, 'the lock to be free, whoever has a copy of its parent\'s files'));
    }

    public function testAPoolThatWaitsForItsChildrenNeverMeetsTheRenewer(): void
    {
        $name = $this->existingName();
        $parent = $this->script(self::HELD.'
            for ($i = 0; $i < 3; ++$i) { if (0 === pcntl_fork()) { posix_kill(getmypid(), 9); } }
            $children = 0;
            while (pcntl_wait($status) > 0) { ++$children; }
            echo "waited for $children\n";
        ', ['name' => $name]);

        self::assertSame('3', $parent->says('waited for '));
    }

    public function testTheRenewerHasNoFilesOfItsParentAndNoSecretInItsArguments(): void
    {
        $name = $this->existingName();
        $parent = $this->script('
            for ($i = 0; $i < 20; ++$i) { $files[] = fopen("/dev/zero", "r"); }
        '.self::HELD.' sleep(60);', ['name' => $name]);
        $parent->says('held');
        [$pid] = Until::is(fn () => self::renewers($parent->pid()), 20, 'the renewer');

        Until::is(fn () => !preg_grep('~/dev/zero~', array_map(static fn ($fd) => (string) @readlink($fd), glob("/proc/$pid/fd/*"))), 20, 'the files to be closed');
        self::assertNotSame($parent->pid(), (int) explode(' ', file_get_contents("/proc/$pid/stat"))[3], 'it is nobody\'s child');
        self::assertStringNotContainsString(Server::WRITE, file_get_contents("/proc/$pid/cmdline").file_get_contents("/proc/$pid/environ"));
        self::assertDoesNotMatchRegularExpression('/[0-9a-f]{32}/', file_get_contents("/proc/$pid/cmdline").file_get_contents("/proc/$pid/environ"));
        Until::is(fn () => preg_match('/^SigIgn:\s*[0-9a-f]*[4-7][0-9a-f]{3}$/m', file_get_contents("/proc/$pid/status")), 20, 'the renewer to begin');
        foreach ([1, 2, 3, 15] as $signal) {
            // What a terminal or a service manager sends to the whole group, while the parent still finishes.
            posix_kill($pid, $signal);
        }
        usleep(300_000);
        self::assertSame([$pid], self::renewers($parent->pid()));
    }

    public function testAHolderThatDoesNotReadTheReportsKeepsTheLock(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name);
        $lock->acquire('me', 3);
        $guard = $lock->autoRenew(every: 0.002, ttl: 3);
        // More reports than the socket holds, and none of them is read.
        for ($i = 0; $i < 80; ++$i) {
            usleep(100_000);
            self::assertTrue($this->server->isTaken($name));
        }
        self::assertTrue($lock->isHeld());
        // The newest report comes once the old ones have made room.
        Until::is(fn () => $lock->remaining() > 1.5, 20, 'the newest report');
        $guard->stop();
        self::assertTrue($lock->release());
    }

    /** @dataProvider kinds */
    #[DataProvider('kinds')]
    public function testALossIsToldWithItsReasonAndIsFinal(string $kind): void
    {
        $name = $this->existingName();
        $lock = $this->resources($kind)->create($name);
        $lock->acquire('me', 2);
        $guard = $lock->autoRenew(every: 0.2, ttl: 2);
        $done = 0;
        try {
            foreach ($guard->each(range(1, 1000)) as $item) {
                if (3 === ++$done) {
                    $this->server->forceOff($name, 'needed for the audit');
                }
                usleep(20_000);
            }
            self::fail('all items were worked on');
        } catch (LockLost $lost) {
            self::assertSame('lease_forced_off', $lost->serverCode);
            self::assertStringContainsString('needed for the audit', $lost->getMessage());
        }
        self::assertLessThan(900, $done);
        self::assertFalse($lock->isHeld());
        self::assertTrue($lock->acquire('me again', 30), 'another lease');
        try {
            $guard->check();
            self::fail('a guard of a lost lease came back');
        } catch (LockLost $again) {
            self::assertSame('lease_forced_off', $again->serverCode);
        }
    }

    public static function kinds(): array
    {
        return [[GuardFactory::PROCESS], [GuardFactory::LOOP]];
    }

    public function testALoopThatIsQuickEnoughKeepsTheLock(): void
    {
        $lock = $this->resources(GuardFactory::LOOP)->create($name = $this->existingName());
        $lock->acquire('me', 3);
        $token = $lock->fencingToken();
        $guard = $lock->autoRenew(every: 0.3, ttl: 3);
        foreach ($guard->each(range(1, 40)) as $item) {
            usleep(100_000);
        }
        self::assertSame($token, $lock->fencingToken());
        self::assertTrue($lock->isHeld());
    }

    public function testAServerThatIsAwayLosesTheLockByTheDeadlineAndNotBefore(): void
    {
        $server = Server::with([]);
        $server->create($name = 'away');
        $lock = $this->resources(uri: $server->uri())->create($name);
        $lock->acquire('me', 6);
        $guard = $lock->autoRenew(every: 0.5, ttl: 6);
        $server->signal(19);
        $stopped = microtime(true);
        try {
            while (true) {
                $guard->check();
                usleep(20_000);
            }
        } catch (LockLost $lost) {
            self::assertSame('deadline_passed', $lost->serverCode);
        }
        self::assertGreaterThan(3.0, microtime(true) - $stopped);
        self::assertLessThan(6 + 4, microtime(true) - $stopped);
        $server->signal(18);
        // The server was stopped, not its clock: the lease has ended there, too.
        Until::is(fn () => !$server->isTaken($name), 20, 'the lease to end');
    }

    public function testAServerThatComesBackInTimeFindsTheLockHeld(): void
    {
        $server = Server::with([]);
        $server->create($name = 'back');
        $lock = $this->resources(uri: $server->uri())->create($name);
        $lock->acquire('me', 20);
        $token = $lock->fencingToken();
        $guard = $lock->autoRenew(every: 0.3, ttl: 20);
        $server->kill();
        usleep(500_000);
        $server->start();
        Until::is(function () use ($lock): bool {
            return $lock->remaining() > 19;
        }, 20, 'a renewal');
        $guard->check();
        self::assertSame($token, $lock->fencingToken());
        self::assertTrue($server->isTaken($name));
        self::assertTrue($lock->release());
    }

    public function testWhereTheRenewerIsKilledTheHolderRenewsItself(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name);
        $lock->acquire('me', 3);
        $guard = $lock->autoRenew(every: 0.5, ttl: 3);
        [$pid] = Until::is(fn () => self::renewers(getmypid()), 20, 'the renewer');
        posix_kill($pid, 9);
        foreach ($guard->each(range(1, 40)) as $item) {
            usleep(100_000);
        }
        self::assertTrue($lock->isHeld());
        self::assertTrue($this->server->isTaken($name));
    }

    public function testRenewalEndsAfterItsMaximalLifetime(): void
    {
        $name = $this->existingName();
        $hangs = $this->script(str_replace('ttl: 3)', 'ttl: 3, maxLifetime: 1.5)', self::HELD).' sleep(6); echo "isHeld ", var_export($lock->isHeld()), "\n"; $guard->check();', ['name' => $name]);
        $hangs->says('held');

        Until::is(fn () => !$this->server->isTaken($name), 20, 'the lock of a process that hangs to be free');
        self::assertSame('false', $hangs->says('isHeld '));
        $hangs->ends();
        self::assertSame(255, $hangs->exitCode());
    }

    public function testStoppingAndReleasingEndTheRenewer(): void
    {
        $lock = $this->resources()->create($this->existingName());
        foreach (['stop', 'release', 'forget'] as $how) {
            $lock->acquire('me', 30);
            $guard = $lock->autoRenew(every: 10, ttl: 30);
            Until::is(fn () => self::renewers(getmypid()), 20, 'the renewer');
            match ($how) {
                'stop' => $guard->stop(),
                'release' => $lock->release(),
                'forget' => $lock = $guard = null,
            };
            self::assertTrue(Until::is(fn () => !self::renewers(getmypid()), 20, 'the renewer to end'));
        }
    }

    /** @dataProvider reports */
    #[DataProvider('reports')]
    public function testReportsAreReadAsTheyCome(array $pieces, bool $held): void
    {
        // Its own renewer never says such things: one that does is put in its place.
        $lock = $this->resources()->create($this->existingName());
        $lock->acquire('me', 30);
        $guard = $lock->autoRenew(every: 10, ttl: 30);
        $socket = new \ReflectionProperty($guard, 'socket');
        $socket->setAccessible(true);
        fwrite($socket->getValue($guard), "stop\n");
        [$ours, $theirs] = stream_socket_pair(\STREAM_PF_UNIX, \STREAM_SOCK_STREAM, 0);
        stream_set_blocking($ours, false);
        $socket->setValue($guard, $ours);
        foreach ($pieces as $i => $piece) {
            fwrite($theirs, $piece);
            $last = $i === \count($pieces) - 1;
            self::assertSame($held || !$last, $lock->isHeld(), "after piece $i");
        }
        $guard->stop();
        self::assertSame($held, $lock->isHeld());
    }

    public static function reports(): array
    {
        return [
            'a line in halves' => [['{"dead', 'line":9', "e9}\n"], true],
            'two at once' => [["{\"deadline\":9e9}\n{\"deadline\":9.1e9}\n"], true],
            'no JSON' => [["PHP Warning: something\n"], false],
            'another object' => [['{"other', "\":1}\n"], false],
            'a loss' => [["{\"deadline\":9e9}\n{\"lost\":{\"status\":403,\"code\":\"lease_expired\",\"error\":\"Over.\",\"forced\":null}}\n"], false],
        ];
    }

    public function testTimesThatCannotWorkAreRefused(): void
    {
        $lock = $this->resources()->create($this->existingName());
        $lock->acquire('me', 30);
        foreach ([[30, 30], [0, 30], [10, 30, 0]] as $times) {
            try {
                $lock->autoRenew(...$times);
                self::fail('accepted '.json_encode($times));
            } catch (\InvalidArgumentException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
    }

    /** @return list<int> the renewers that a process started */
    private static function renewers(int $parent): array
    {
        $found = [];
        foreach (glob('/proc/[0-9]*/cmdline') as $file) {
            if (str_contains((string) @file_get_contents($file), 'bin/renew.php') && str_contains((string) @file_get_contents(\dirname($file).'/environ'), "LOCK_RENEWER_OF=$parent\0")) {
                $found[] = (int) basename(\dirname($file));
            }
        }

        return $found;
    }

    /** A port that takes connections and never answers. */
    private function silentPort(): int
    {
        static $listener = null;
        $listener ??= stream_socket_server('tcp://127.0.0.1:0');

        return (int) substr(strrchr(stream_socket_get_name($listener, false), ':'), 1);
    }

    private function fifo(): string
    {
        return sys_get_temp_dir().'/srs-php-'.bin2hex(random_bytes(6));
    }
}
