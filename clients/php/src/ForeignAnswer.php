<?php

declare(strict_types=1);

namespace SmallResource\Client;

use Symfony\Contracts\HttpClient\Exception\TransportExceptionInterface;

/**
 * An answer to somebody else's request came over the connection, which counts as broken from then on.
 *
 * @internal
 */
final class ForeignAnswer extends \RuntimeException implements TransportExceptionInterface
{
}
