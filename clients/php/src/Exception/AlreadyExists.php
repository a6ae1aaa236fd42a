<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** A resource of the name exists already (409). */
final class AlreadyExists extends ResourceServerException
{
}
