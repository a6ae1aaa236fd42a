<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** Something answered that does not speak the server's protocol. */
final class InvalidAnswer extends ResourceServerException
{
}
