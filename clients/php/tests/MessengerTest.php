<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Lock\ResourceServerStore;
use SmallResource\Client\Messenger\LockMiddleware;
use SmallResource\Client\Messenger\RunLockedStamp;
use SmallResource\Client\Tests\Support\LockTestCase;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\Exception\RecoverableMessageHandlingException;
use Symfony\Component\Messenger\Handler\HandlersLocator;
use Symfony\Component\Messenger\MessageBus;
use Symfony\Component\Messenger\Middleware\DeduplicateMiddleware;
use Symfony\Component\Messenger\Middleware\HandleMessageMiddleware;
use Symfony\Component\Messenger\Stamp\DeduplicateStamp;
use Symfony\Component\Messenger\Stamp\HandledStamp;
use Symfony\Component\Messenger\Stamp\ReceivedStamp;

final class MessengerTest extends LockTestCase
{
    private function bus(callable $handler): MessageBus
    {
        return new MessageBus([
            new LockMiddleware($this->resources()),
            new HandleMessageMiddleware(new HandlersLocator([\stdClass::class => [$handler]])),
        ]);
    }

    public function testAMessageIsHandledUnderItsLock(): void
    {
        $name = $this->existingName();
        $owner = null;
        $bus = $this->bus(function () use ($name, &$owner): string {
            $owner = $this->server->owner($name);

            return 'done';
        });
        $envelope = $bus->dispatch(new \stdClass(), [new RunLockedStamp($name), new ReceivedStamp('queue')]);

        self::assertSame('done', $envelope->last(HandledStamp::class)->getResult());
        self::assertSame(gethostname().':'.getmypid(), $owner);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testAMessageWhoseLockIsBusyComesAgain(): void
    {
        $name = $this->existingName();
        $holder = $this->resources()->create($name);
        $holder->acquire('them', 30);
        $bus = $this->bus(static fn () => self::fail('handled'));

        $this->expectException(RecoverableMessageHandlingException::class);
        $bus->dispatch(new \stdClass(), [new RunLockedStamp($name, wait: 0.1), new ReceivedStamp('queue')]);
    }

    public function testAMessageThatIsSentTakesNoLock(): void
    {
        $name = $this->existingName();
        $taken = null;
        $bus = $this->bus(function () use ($name, &$taken): void {
            $taken = $this->server->isTaken($name);
        });
        $bus->dispatch(new \stdClass(), [new RunLockedStamp($name)]);
        self::assertFalse($taken);
        $bus->dispatch(new \stdClass(), [new ReceivedStamp('queue')]);
        self::assertFalse($taken);
    }

    public function testTheLockIsKeptForAsLongAsTheHandlerRunsAndGivenBackWhenItFails(): void
    {
        $name = $this->existingName();
        $bus = $this->bus(function () use ($name): void {
            $end = microtime(true) + 4.5;
            while (microtime(true) < $end) {
                self::assertTrue($this->server->isTaken($name));
            }

            throw new \DomainException('no');
        });
        try {
            $bus->dispatch(new \stdClass(), [new RunLockedStamp($name, ttl: 3.0), new ReceivedStamp('queue')]);
            self::fail('the handler failed');
        } catch (\Throwable $e) {
            self::assertStringContainsString('no', $e->getMessage());
        }
        self::assertFalse($this->server->isTaken($name));
    }

    public function testALockThatIsLostMeanwhileIsTold(): void
    {
        $name = $this->existingName();
        $bus = $this->bus(function () use ($name): void {
            $this->server->forceOff($name);
            sleep(2);
        });
        $this->expectException(LockLost::class);
        $bus->dispatch(new \stdClass(), [new RunLockedStamp($name, ttl: 3.0), new ReceivedStamp('queue')]);
    }

    public function testDuplicatesAreFoundByTheStampOfSymfony(): void
    {
        if (!class_exists(DeduplicateStamp::class)) {
            $this->leaveOut('This version of Messenger has no DeduplicateStamp.');
        }
        $handled = 0;
        $bus = new MessageBus([
            new DeduplicateMiddleware(new LockFactory(new ResourceServerStore($this->client()))),
            new HandleMessageMiddleware(new HandlersLocator([\stdClass::class => [static function () use (&$handled): void {
                ++$handled;
            }]]), true),
        ]);
        $name = $this->unknownName();
        $sent = $bus->dispatch(new Envelope(new \stdClass(), [new DeduplicateStamp($name, 30)]));
        $bus->dispatch(new Envelope(new \stdClass(), [new DeduplicateStamp($name, 30)]));
        self::assertSame(1, $handled);
        // It is handled in another process, which releases what this one locked.
        $bus->dispatch(unserialize(serialize($sent->withoutAll(HandledStamp::class)->with(new ReceivedStamp('queue')))));
        self::assertSame(2, $handled);
        self::assertFalse($this->server->isTaken($name));
    }
}
