<?php

declare(strict_types=1);

namespace SmallResource\Client\Messenger;

use SmallResource\Client\ResourceFactory;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\Exception\RecoverableMessageHandlingException;
use Symfony\Component\Messenger\Middleware\MiddlewareInterface;
use Symfony\Component\Messenger\Middleware\StackInterface;
use Symfony\Component\Messenger\Stamp\ReceivedStamp;

/** Handles messages that carry a RunLockedStamp under their lock. A message whose lock is busy comes again later. */
final class LockMiddleware implements MiddlewareInterface
{
    public function __construct(private readonly ResourceFactory $resources)
    {
    }

    public function handle(Envelope $envelope, StackInterface $stack): Envelope
    {
        $stamp = $envelope->last(RunLockedStamp::class);
        if (!$stamp instanceof RunLockedStamp || null === $envelope->last(ReceivedStamp::class)) {
            return $stack->next()->handle($envelope, $stack);
        }
        $lock = $this->resources->getResource($stamp->name);
        if (!$lock->acquire(gethostname().':'.getmypid(), $stamp->ttl, $stamp->wait, get_debug_type($envelope->getMessage()))) {
            throw new RecoverableMessageHandlingException(sprintf('The lock "%s" is busy.', $stamp->name));
        }
        try {
            $guard = $lock->autoRenew($stamp->ttl / 3, $stamp->ttl, $stamp->maxLifetime);
            try {
                $envelope = $stack->next()->handle($envelope, $stack);
                // Another worker may have handled the next one meanwhile: somebody has to hear of it.
                $guard->check();

                return $envelope;
            } finally {
                $guard->stop();
            }
        } finally {
            $lock->release();
        }
    }
}
