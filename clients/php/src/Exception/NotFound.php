<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** No resource has the name, or the selector was never written (404). */
final class NotFound extends ResourceServerException
{
}
