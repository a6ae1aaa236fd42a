<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use SmallResource\Client\Console\LocksCommand;
use SmallResource\Client\Console\RunLockedCommand;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Script;
use SmallResource\Client\Tests\Support\Until;
use Symfony\Component\Console\Tester\CommandTester;

final class ConsoleTest extends LockTestCase
{
    public function testItShowsWhoHoldsWhat(): void
    {
        $name = $this->existingName();
        $locks = new CommandTester(new LocksCommand($this->client()));
        self::assertSame(0, $locks->execute(['prefix' => $name]));
        self::assertStringContainsString('Nobody holds a lock.', $locks->getDisplay());

        $lock = $this->resources()->create($name);
        $lock->acquire('worker-7', 30);
        $locks->execute(['prefix' => $name]);
        self::assertStringContainsString('worker-7', $locks->getDisplay());
        self::assertStringContainsString($name, $locks->getDisplay());

        $lock->release();
        $locks->execute(['prefix' => $name, '--all' => true]);
        self::assertStringContainsString($name, $locks->getDisplay());
    }

    public function testACommandRunsUnderItsLockAndItsExitCodeIsKept(): void
    {
        $name = $this->existingName();
        $run = $this->runs($name, 'echo "token $LOCK_FENCING_TOKEN"; read line; exit 7');
        self::assertMatchesRegularExpression('/^\d+$/', $run->says('token '));
        self::assertTrue($this->server->isTaken($name));
        self::assertSame(75, (new CommandTester(new RunLockedCommand($this->resources())))->execute(['name' => $name, 'cmd' => ['false']]), 'the lock is busy');

        $run->tell('go on');
        $run->ends();
        self::assertSame(7, $run->exitCode());
        self::assertFalse($this->server->isTaken($name));
    }

    public function testSignalsAreTheCommandsAndTheLockIsKeptUntilItHasEnded(): void
    {
        $name = $this->existingName();
        $run = $this->runs($name, 'trap "echo told" TERM; echo "pid $$"; until [ -e "$0" ]; do sleep 0.1; done; exit 7', arguments: [$go = tempnam(sys_get_temp_dir(), 'srs-php-')]);
        unlink($go);
        $pid = (int) $run->says('pid ');
        $run->kill(15);
        $run->says('told');
        self::assertTrue($this->server->isTaken($name));
        self::assertFileExists("/proc/$pid");
        touch($go);
        $run->ends();
        unlink($go);
        self::assertSame(7, $run->exitCode());
        self::assertFalse($this->server->isTaken($name));
    }

    public function testASignalInTheWaitIsNoSuccessAndLeavesTheQueue(): void
    {
        $lock = $this->resources()->create($name = $this->existingName());
        $lock->acquire('worker-7', 30);
        // With a dispatcher, as in every application, Symfony answers to signals itself.
        $run = $this->script('
            $resources = new SmallResource\Client\ResourceFactory(new SmallResource\Client\Client($uri, $key));
            $application = new Symfony\Component\Console\Application();
            $application->setDispatcher(new Symfony\Component\EventDispatcher\EventDispatcher());
            $application->addCommands([new SmallResource\Client\Console\RunLockedCommand($resources)]);
            $application->run(new Symfony\Component\Console\Input\ArrayInput(["command" => "small-resource:run", "name" => $name, "cmd" => ["true"], "--wait" => 600]));
        ', ['name' => $name]);
        Until::is(fn () => 1 === $this->waiting($name), 30, 'its place in the queue');
        $run->kill(15);
        $run->ends();
        self::assertSame(128 + 15, $run->exitCode());
        self::assertSame(0, $this->waiting($name));
        $lock->release();
    }

    public function testACommandThatIsNotThereIsNamedAndNothingIsLocked(): void
    {
        $lock = $this->resources()->create($name = $this->existingName());
        $lock->acquire('worker-7', 30);
        $run = new CommandTester(new RunLockedCommand($this->resources()));
        foreach (['no-such-command' => 127, './no-such-command' => 127, __FILE__ => 126, '' => 126] as $command => $code) {
            self::assertSame($code, $run->execute(['name' => $name, 'cmd' => [(string) $command, 'x']]), $command);
            self::assertStringContainsString('"'.$command.'"', $run->getDisplay());
        }
        $lock->release();
    }

    public function testATimeThatIsNoNumberIsRefused(): void
    {
        $run = new CommandTester(new RunLockedCommand($this->resources()));
        foreach (['--ttl' => '30s', '--wait' => '1h'] as $option => $time) {
            self::assertSame(2, $run->execute(['name' => 'x', 'cmd' => ['true'], $option => $time]));
            self::assertStringContainsString($option.' takes a number of seconds', $run->getDisplay());
        }
    }

    public function testACommandThatLosesItsLockIsEnded(): void
    {
        $name = $this->existingName();
        $run = $this->runs($name, 'echo "pid $$"; exec sleep 60');
        $pid = (int) $run->says('pid ');
        $this->server->forceOff($name);
        Until::is(fn () => !file_exists("/proc/$pid"), 30, 'the end of the command');
        $run->ends();
        self::assertSame(76, $run->exitCode());
    }

    public function testACommandThatIgnoresToldToEndIsDeadBeforeAnybodyElseHoldsTheLock(): void
    {
        $server = Support\Server::with([]);
        $server->create($name = 'x');
        // On a machine that is busy for longer than the margin, once.
        for ($try = 1, $inTime = false; !$inTime && $try <= 3; ++$try) {
            $run = $this->runs($name, 'trap "" TERM; echo "pid $$"; while :; do sleep 0.1; done', $server->uri());
            $pid = (int) $run->says('pid ');
            $lease = new \DateTimeImmutable($server->asked('GET', '/resource/x')['holder']['expiresAt']);
            $server->signal(19);
            Until::is(fn () => !file_exists("/proc/$pid"), 30, 'the end of the command');
            $inTime = new \DateTimeImmutable() < $lease;
            $server->signal(18);
            $run->ends();
            self::assertSame(76, $run->exitCode());
        }
        self::assertTrue($inTime, 'it ended before its lease');
    }

    private function waiting(string $name): int
    {
        return $this->server->asked('GET', '/resource/'.rawurlencode($name))['waiting'];
    }

    private function runs(string $name, string $shell, ?string $uri = null, array $arguments = []): Script
    {
        return $this->script('
            $resources = new SmallResource\Client\ResourceFactory(new SmallResource\Client\Client($uri, $key));
            $command = new SmallResource\Client\Console\RunLockedCommand($resources);
            exit($command->run(new Symfony\Component\Console\Input\ArrayInput(["name" => $name, "cmd" => ["sh", "-c", $shell, ...$arguments], "--ttl" => 3]), new Symfony\Component\Console\Output\ConsoleOutput()));
        ', ['name' => $name, 'shell' => $shell, 'arguments' => $arguments] + (null === $uri ? [] : ['uri' => $uri]));
    }
}
