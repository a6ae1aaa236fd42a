<?php

declare(strict_types=1);

namespace SmallResource\Client;

use Symfony\Contracts\HttpClient\Exception\TransportExceptionInterface;

/**
 * No byte of the request left, so no server did anything about it.
 *
 * @internal
 */
final class NothingSent extends \RuntimeException implements TransportExceptionInterface
{
}
