<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** The server was not reached or could not serve, for longer than was retried. */
final class ServerUnavailable extends ResourceServerException
{
}
