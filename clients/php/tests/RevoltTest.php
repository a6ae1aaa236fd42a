<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use Revolt\EventLoop;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Renewal\RevoltGuard;
use SmallResource\Client\Tests\Support\LockTestCase;

final class RevoltTest extends LockTestCase
{
    public function testALoopRenewsWhatIsHeldInIt(): void
    {
        if (!class_exists(EventLoop::class)) {
            $this->leaveOut('revolt/event-loop is not installed.');
        }
        $name = $this->existingName();
        EventLoop::queue(function () use ($name): void {
            $lock = $this->resources()->create($name);
            $lock->acquire('me', 2);
            $guard = $lock->autoRenew(every: 0.5, ttl: 2);
            self::assertInstanceOf(RevoltGuard::class, $guard);
            $this->pause(4);
            $guard->check();
            self::assertTrue($this->server->isTaken($name));
            $this->server->forceOff($name);
            $this->pause(2);
            try {
                $guard->check();
                self::fail('a lost lock is held');
            } catch (LockLost $lost) {
                self::assertSame('lease_forced_off', $lost->serverCode);
            }
        });
        EventLoop::run();
    }

    private function pause(float $seconds): void
    {
        $suspension = EventLoop::getSuspension();
        EventLoop::delay($seconds, static fn () => $suspension->resume());
        $suspension->suspend();
    }
}
